package reput;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ConcurrentMap;
import org.apache.rocketmq.common.attribute.CQType;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.DispatchRequest;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.queue.ConsumeQueueInterface;
import org.apache.rocketmq.store.queue.CqUnit;

/** Holds an open Java store against what the writer of its directory was told. Collects every difference. */
final class Check {
    private static final long[] DELAY_SECONDS =
        {1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200};

    private final DefaultMessageStore store;
    private final List<Ack> acks;
    private final List<String> problems = new ArrayList<>();
    private final Map<Long, MessageExt> records = new HashMap<>();
    private final Map<Long, Integer> sizes = new HashMap<>();
    int entries;
    int queries;

    Check(DefaultMessageStore store, List<Ack> acks) {
        this.store = store;
        this.acks = acks;
    }

    List<String> problems() {
        return problems;
    }

    int records() {
        return records.size();
    }

    private void differ(String what, Object want, Object got) {
        if (problems.size() < 40) {
            problems.add(what + ": written " + want + ", Java has " + got);
        }
    }

    private void equal(String what, Object want, Object got) {
        if (!Objects.equals(want, got)) {
            differ(what, want, got);
        }
    }

    /** Walks the whole log as Java reads it, body checksums and all; the records must stand one behind the other. */
    void walkLog() {
        long at = store.getMinPhyOffset();
        long end = store.getMaxPhyOffset();
        long segment = store.getMessageStoreConfig().getMappedFileSizeCommitLog();
        while (at < end) {
            SelectMappedBufferResult data = store.getCommitLogData(at);
            if (data == null) {
                differ("log at " + at, "bytes", null);
                return;
            }
            try {
                ByteBuffer bytes = data.getByteBuffer();
                long base = at;
                while (at < end && bytes.hasRemaining()) {
                    int start = bytes.position();
                    DispatchRequest request = store.getCommitLog().checkMessageAndReturnSize(bytes, true, false, true);
                    if (!request.isSuccess()) {
                        differ("log at " + at, "a record", "something that Java does not read");
                        return;
                    }
                    if (request.getMsgSize() == 0) {
                        at = (at / segment + 1) * segment;
                        break;
                    }
                    bytes.position(start + request.getMsgSize());
                    ByteBuffer one = data.getByteBuffer().duplicate();
                    one.position(start).limit(start + request.getMsgSize());
                    MessageExt m = MessageDecoder.decode(one.slice(), true, false, false, false, true);
                    if (m == null) {
                        differ("record at " + at, "a message", null);
                        return;
                    }
                    equal("physical offset of the record at " + at, at, m.getCommitLogOffset());
                    records.put(at, m);
                    sizes.put(at, request.getMsgSize());
                    at = base + start + request.getMsgSize();
                }
            } finally {
                data.release();
            }
        }
        equal("end of the log", end, at);
    }

    /** Every acknowledged message: its record field by field, its queue entry, its multi-dispatched entries. */
    void checkAcks() throws Exception {
        for (Ack a : acks) {
            MessageExt m = records.get(a.phyOffset);
            String who = a.topic + "/" + a.queueId + "@" + a.queueOffset + " at " + a.phyOffset;
            if (m == null) {
                differ(who, "acknowledged", "no record");
                continue;
            }
            checkRecord(who, a, m);
            if (a.queued()) {
                checkEntry(who, a, m);
            }
        }
    }

    private void checkRecord(String who, Ack a, MessageExt m) {
        equal(who + " topic", a.topic, m.getTopic());
        equal(who + " queueId", a.queueId, m.getQueueId());
        equal(who + " queueOffset", a.queued() ? a.queueOffset : 0L, m.getQueueOffset());
        equal(who + " flag", a.flag, m.getFlag());
        equal(who + " sysFlag", a.sysFlag, m.getSysFlag());
        equal(who + " bornTimestamp", a.bornTimestamp, m.getBornTimestamp());
        equal(who + " storeTimestamp", a.storeTimestamp, m.getStoreTimestamp());
        equal(who + " bornHost", a.bornHost, Plan.hostText(m.getBornHost()));
        equal(who + " storeHost", a.storeHost, Plan.hostText(m.getStoreHost()));
        equal(who + " reconsumeTimes", a.reconsumeTimes, m.getReconsumeTimes());
        equal(who + " preparedTransactionOffset", a.preparedTransactionOffset, m.getPreparedTransactionOffset());
        byte[] body = m.getBody() == null ? new byte[0] : m.getBody();
        equal(who + " body length", a.bodyLength, body.length);
        equal(who + " body", a.bodyCrc, body.length == 0 ? 0L : Ack.crc(body));
        equal(who + " tags", a.tags, m.getTags());
        equal(who + " keys", a.keys, m.getKeys());
        equal(who + " unique key", a.uniqKey, m.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX));
        equal(who + " user property", a.user, m.getProperty("user"));
        if (a.size > 0) {
            equal(who + " size", a.size, sizes.get(a.phyOffset));
        }
    }

    private void checkEntry(String who, Ack a, MessageExt m) {
        ConsumeQueueInterface queue = store.findConsumeQueue(a.topic, a.queueId);
        CqUnit unit = queue.get(a.queueOffset);
        if (unit == null) {
            differ(who, "a queue entry", "none, the queue ends at " + queue.getMaxOffsetInQueue());
            return;
        }
        equal(who + " entry's offset", a.phyOffset, unit.getPos());
        equal(who + " entry's size", sizes.get(a.phyOffset), unit.getSize());
        equal(who + " entry's tags code", tagsCode(a), unit.isTagsCodeValid() ? unit.getTagsCode() : (Object) unit.getValidTagsCodeAsLong());
        if (queue.getCQType() == CQType.BatchCQ) {
            equal(who + " entry's count", a.innerNum, (int) unit.getBatchNum());
        }
        if (a.lmq != null) {
            String[] names = a.lmq.split(",");
            String offsets = m.getProperty(MessageConst.PROPERTY_INNER_MULTI_QUEUE_OFFSET);
            equal(who + " multi-dispatch offsets", names.length, offsets == null ? 0 : offsets.split(",").length);
            for (int i = 0; offsets != null && i < names.length; i++) {
                CqUnit other = store.findConsumeQueue(names[i], 0).get(Long.parseLong(offsets.split(",")[i]));
                equal(who + " entry in " + names[i], a.phyOffset, other == null ? null : (Object) other.getPos());
            }
        }
    }

    private static long tagsCode(Ack a) {
        if (a.topic.equals("SCHEDULE_TOPIC_XXXX") && a.delayLevel > 0) {
            return a.storeTimestamp + DELAY_SECONDS[a.delayLevel - 1] * 1000;
        }
        return a.tags == null || a.tags.isEmpty() ? 0 : a.tags.hashCode();
    }

    /** Every entry of every queue must lead to a record of that very queue and offset. */
    void walkQueues() {
        for (ConcurrentMap<Integer, ConsumeQueueInterface> ofTopic : store.getConsumeQueueTable().values()) {
            for (ConsumeQueueInterface queue : ofTopic.values()) {
                String name = queue.getTopic() + "/" + queue.getQueueId();
                for (long q = queue.getMinOffsetInQueue(); q < queue.getMaxOffsetInQueue(); ) {
                    CqUnit unit = queue.get(q);
                    MessageExt m = unit == null ? null : records.get(unit.getPos());
                    if (m == null) {
                        differ(name + "@" + q, "an entry that leads to a record", unit);
                        break;
                    }
                    entries++;
                    if (queue.getTopic().startsWith(MessageConst.PROPERTY_INNER_MULTI_DISPATCH) || queue.getTopic().startsWith("%LMQ%")) {
                        List<String> names = Arrays.asList(m.getProperty(MessageConst.PROPERTY_INNER_MULTI_DISPATCH).split(","));
                        String[] offsets = m.getProperty(MessageConst.PROPERTY_INNER_MULTI_QUEUE_OFFSET).split(",");
                        equal(name + "@" + q + " leads to offset", q, Long.parseLong(offsets[names.indexOf(queue.getTopic())]));
                    } else {
                        equal(name + "@" + q + " leads to", queue.getTopic() + "/" + queue.getQueueId() + "@" + q,
                            m.getTopic() + "/" + m.getQueueId() + "@" + m.getQueueOffset());
                    }
                    q += queue.getCQType() == CQType.BatchCQ ? Math.max(1, unit.getBatchNum()) : 1;
                }
            }
        }
    }

    /** Every key and tag of what lies at or behind `from` must be found by a query. */
    void checkQueries(long from) {
        for (Ack a : acks) {
            if (!a.indexed() || a.phyOffset < from) {
                continue;
            }
            find(a, a.uniqKey);
            find(a, a.keys.split(" ")[0]);
        }
    }

    private void find(Ack a, String key) {
        queries++;
        QueryMessageResult result = store.queryMessage(a.topic, key, 32, 0, Long.MAX_VALUE);
        boolean found = false;
        for (ByteBuffer bytes : result.getMessageBufferList()) {
            found |= bytes.getLong(bytes.position() + 28) == a.phyOffset;
        }
        result.release();
        if (!found) {
            differ("query " + a.topic + "#" + key, a.phyOffset, "not among " + result.getMessageBufferList().size() + " hits");
        }
    }

    /**
     * From where on Java's index must be whole. After a kill Java drops the newest index files and fills them again from
     * the records that it scans, that is from the segment that the checkpoint's last dispatched offset lies in.
     */
    static long indexedFrom(Path root, long segment, boolean killed) throws IOException {
        if (!killed) {
            return 0;
        }
        ByteBuffer checkpoint = ByteBuffer.wrap(Files.readAllBytes(root.resolve("checkpoint")));
        return Math.max(0, checkpoint.getLong(40) / segment * segment);
    }
}
