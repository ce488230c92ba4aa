package reput;

import com.alibaba.fastjson2.JSON;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.Writer;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.Semaphore;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.store.CommitLog;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.queue.ConsumeQueueInterface;
import org.apache.rocketmq.store.queue.CqUnit;
import org.apache.rocketmq.store.queue.ReferredIterator;

/**
 * Opens one directory after the other with Java's own store and writes down what it then serves. For each line
 * `DIR TAB CONF TAB OUT` on standard input a line `== loaded`, `== refused` or `== threw X` comes back, and OUT has JSON
 * objects of the shape that `reput store dump --json` prints. The directory is changed as Java changes it. With `-` for
 * OUT the store is opened and stays open until this process ends.
 */
public final class Dump {
    /** Stores that are being shut down aside: it takes Java seconds of sleep. */
    private static final Semaphore CLOSING = new Semaphore(12);
    private static final int MOST_KEYS = 60;

    private final DefaultMessageStore store;
    private final Writer out;
    private final TreeMap<String, TreeSet<String>> keys = new TreeMap<>();

    private Dump(DefaultMessageStore store, Writer out) {
        this.store = store;
        this.out = out;
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err);
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = asked.readLine(); line != null; line = asked.readLine()) {
            String[] words = line.split("\t");
            String answer;
            try {
                answer = one(Path.of(words[0]), Path.of(words[1]), Path.of(words[2]));
            } catch (Throwable e) {
                e.printStackTrace();
                answer = "threw " + e.getClass().getSimpleName() + ": " + String.valueOf(e.getMessage()).replace('\n', ' ');
            }
            answers.println("== " + answer);
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static String one(Path root, Path conf, Path out) throws Exception {
        DefaultMessageStore store = JavaStore.make(root, conf);
        if (!store.load()) {
            return "refused";
        }
        store.start();
        if (out.toString().equals("-")) {
            return "loaded";
        }
        try (BufferedWriter writer = Files.newBufferedWriter(out)) {
            JavaStore.awaitDispatch(store);
            new Dump(store, writer).everything();
        } finally {
            CLOSING.acquire();
            Thread closer = new Thread(() -> {
                try {
                    store.shutdown();
                } catch (Throwable ignored) {
                    // What it served is written down; how it goes down is not asked.
                } finally {
                    CLOSING.release();
                }
            });
            closer.setDaemon(true);
            closer.start();
        }
        return "loaded";
    }

    private void line(Object... pairs) throws Exception {
        Map<String, Object> line = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            line.put((String) pairs[i], pairs[i + 1]);
        }
        out.write(JSON.toJSONString(line));
        out.write('\n');
    }

    private void everything() throws Exception {
        line("t", "store", "stage", "start", "minPhyOffset", store.getMinPhyOffset(), "maxPhyOffset", store.getMaxPhyOffset());
        log();
        for (ConcurrentMap<Integer, ConsumeQueueInterface> queues : store.getConsumeQueueTable().values()) {
            for (ConsumeQueueInterface queue : queues.values()) {
                line("t", "queue", "stage", "start", "topic", queue.getTopic(), "queueId", queue.getQueueId(), "cqType",
                    queue.getCQType().name(), "minOffset", queue.getMinOffsetInQueue(), "maxOffset", queue.getMaxOffsetInQueue());
                entries(queue);
            }
        }
        int asked = 0;
        for (Map.Entry<String, TreeSet<String>> topic : keys.entrySet()) {
            for (String key : topic.getValue()) {
                if (asked++ < MOST_KEYS) {
                    query(topic.getKey(), key);
                }
            }
        }
    }

    /** Walks the log; behind a place where nothing stands it goes on in the next segment. */
    private void log() throws Exception {
        CommitLog log = store.getCommitLog();
        long at = store.getMinPhyOffset();
        long end = store.getMaxPhyOffset();
        while (at >= 0 && at < end) {
            SelectMappedBufferResult data = log.getData(at, false);
            int size = 0;
            if (data != null) {
                try {
                    size = record(at, data.getByteBuffer());
                } finally {
                    data.release();
                }
            }
            at = size > 0 ? at + size : log.rollNextFile(at);
        }
        line("t", "walkEnd", "phyOffset", at);
    }

    private int record(long at, ByteBuffer bytes) throws Exception {
        int start = bytes.position();
        if (bytes.remaining() < 8) {
            return 0;
        }
        int size = bytes.getInt(start);
        int magic = bytes.getInt(start + 4);
        if (magic == CommitLog.BLANK_MAGIC_CODE) {
            line("t", "blank", "phyOffset", at, "size", size);
            return 0;
        }
        boolean known = magic == MessageDecoder.MESSAGE_MAGIC_CODE || magic == MessageDecoder.MESSAGE_MAGIC_CODE_V2;
        if (!known || size < 91 || size > bytes.remaining()) {
            line("t", "badrecord", "phyOffset", at, "size", size);
            return 0;
        }
        byte[] raw = new byte[size];
        bytes.duplicate().position(start).get(raw);
        MessageExt message = decode(raw);
        if (message == null) {
            line("t", "badrecord", "phyOffset", at, "size", size);
            return size;
        }
        line("t", "record", "phyOffset", at, "size", size, "recordSha256", sha(raw), "topic", message.getTopic(), "queueId",
            message.getQueueId(), "queueOffset", message.getQueueOffset(), "storedPhyOffset", message.getCommitLogOffset(),
            "keys", message.getKeys(), "sysFlag", message.getSysFlag(), "bodyWhole", bodyWhole(message));
        if (message.getKeys() != null) {
            for (String key : message.getKeys().split(" ")) {
                if (!key.isEmpty()) {
                    keys.computeIfAbsent(message.getTopic(), t -> new TreeSet<>()).add(key);
                }
            }
        }
        return size;
    }

    private static MessageExt decode(byte[] raw) {
        try {
            return MessageDecoder.decode(ByteBuffer.wrap(raw), true, false, false);
        } catch (RuntimeException e) {
            return null;
        }
    }

    private static boolean bodyWhole(MessageExt message) {
        byte[] body = message.getBody();
        return body == null || body.length == 0 || (Ack.crc(body) & 0x7fffffff) == (message.getBodyCRC() & 0x7fffffff);
    }

    private static String sha(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    private void entries(ConsumeQueueInterface queue) throws Exception {
        // An empty batch queue says -1 for its first offset, and throws when it is asked for that.
        long next = Math.max(0, queue.getMinOffsetInQueue());
        boolean more = true;
        while (more && next < queue.getMaxOffsetInQueue()) {
            more = false;
            // An iterator ends with its file.
            ReferredIterator<CqUnit> units = queue.iterateFrom(next);
            if (units == null) {
                break;
            }
            try {
                while (units.hasNext()) {
                    CqUnit unit = units.next();
                    if (unit == null) {
                        break;
                    }
                    entry(queue, unit);
                    long after = unit.getQueueOffset() + Math.max(1, unit.getBatchNum());
                    if (after > next) {
                        next = after;
                        more = true;
                    }
                }
            } catch (RuntimeException e) {
                line("t", "cqError", "topic", queue.getTopic(), "queueId", queue.getQueueId(), "queueOffset", next, "error",
                    e.getClass().getSimpleName());
                more = false;
            } finally {
                units.release();
            }
        }
    }

    private void entry(ConsumeQueueInterface queue, CqUnit unit) throws Exception {
        MessageExt message = null;
        String sha = null;
        boolean ended = false;
        SelectMappedBufferResult bytes = null;
        try {
            bytes = unit.getSize() > 0 ? store.selectOneMessageByOffset(unit.getPos(), unit.getSize()) : null;
            if (bytes != null && bytes.getByteBuffer().remaining() >= unit.getSize()) {
                byte[] raw = new byte[unit.getSize()];
                bytes.getByteBuffer().get(raw);
                if (raw.length > 8 && ByteBuffer.wrap(raw).getInt() == raw.length) {
                    message = decode(raw);
                    sha = sha(raw);
                    // What was never written, or was wiped, is zeros; a list of properties has none.
                    ended = message != null && !hasZeros(raw);
                }
            }
        } catch (RuntimeException e) {
            message = null;
        } finally {
            if (bytes != null) {
                bytes.release();
            }
        }
        line("t", "cq", "topic", queue.getTopic(), "queueId", queue.getQueueId(), "queueOffset", unit.getQueueOffset(), "phyOffset",
            unit.getPos(), "size", unit.getSize(), "tagsCode", unit.getTagsCode(), "batchNum", unit.getBatchNum(), "found",
            message != null, "sha", sha, "msgTopic", message == null ? null : message.getTopic(), "msgQueueId",
            message == null ? null : message.getQueueId(), "msgQueueOffset", message == null ? null : message.getQueueOffset(),
            "msgPhyOffset", message == null ? null : message.getCommitLogOffset(), "whole", message != null && ended && bodyWhole(message));
    }

    /** Whether a record holds a byte 0 behind its topic and its properties' length: what Java makes of them may not show it. */
    private static boolean hasZeros(byte[] raw) {
        ByteBuffer record = ByteBuffer.wrap(raw);
        int sysFlag = record.getInt(36);
        int hosts = ((sysFlag & MessageSysFlag.BORNHOST_V6_FLAG) == 0 ? 8 : 20) + ((sysFlag & MessageSysFlag.STOREHOSTADDRESS_V6_FLAG) == 0 ? 8 : 20);
        int bodyAt = 48 + hosts + 8 + 4 + 8;
        int topicAt = bodyAt + 4 + record.getInt(bodyAt);
        boolean longTopic = record.getInt(4) == MessageDecoder.MESSAGE_MAGIC_CODE_V2;
        int propertiesAt = topicAt + (longTopic ? 2 + record.getShort(topicAt) : 1 + record.get(topicAt)) + 2;
        for (int at = propertiesAt; at < raw.length; at++) {
            if (raw[at] == 0) {
                return true;
            }
        }
        return false;
    }

    private void query(String topic, String key) throws Exception {
        List<Long> hits = new ArrayList<>();
        try {
            QueryMessageResult result = store.queryMessage(topic, key, 32, 0, Long.MAX_VALUE);
            for (ByteBuffer bytes : result.getMessageBufferList()) {
                hits.add(bytes.remaining() < 36 ? -1L : bytes.getLong(bytes.position() + 28));
            }
            result.release();
        } catch (RuntimeException e) {
            line("t", "queryError", "topic", topic, "key", key, "error", e.getClass().getSimpleName());
            return;
        }
        line("t", "query", "topic", topic, "key", key, "phyOffsets", hits);
    }
}
