package reput;

import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.AppendMessageResult;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.PutMessageStatus;

/**
 * Writes a directory with the Java store: Write DIR ACKS CONF PLAN TOPICS QUEUES MAXBODY THREADS COUNT clean|halt.
 * With `halt` the process ends in the middle of writing, without a word to the store, once COUNT are acknowledged.
 */
public final class Write {
    private final DefaultMessageStore store;
    private final Plan plan;
    private final FileOutputStream acks;
    private final AtomicLong next;
    private final AtomicLong acknowledged = new AtomicLong();

    private Write(DefaultMessageStore store, Plan plan, FileOutputStream acks, long first) {
        this.store = store;
        this.plan = plan;
        this.acks = acks;
        this.next = new AtomicLong(first);
    }

    public static void main(String[] args) throws Exception {
        Plan plan = new Plan(args[3], Integer.parseInt(args[4]), Integer.parseInt(args[5]), Integer.parseInt(args[6]));
        int threads = Integer.parseInt(args[7]);
        long count = Long.parseLong(args[8]);
        boolean halt = args[9].equals("halt");
        Path log = Path.of(args[1]);
        long first = java.nio.file.Files.exists(log) ? 1_000_000L * (1 + Ack.read(log).size() / 1_000_000) : 0;
        DefaultMessageStore store = JavaStore.open(Path.of(args[0]), Path.of(args[2]));
        Write write = new Write(store, plan, new FileOutputStream(args[1], true), first);
        List<Thread> workers = new ArrayList<>();
        for (int i = 0; i < threads; i++) {
            Thread worker = new Thread(() -> write.run(halt ? Long.MAX_VALUE : first + count));
            worker.start();
            workers.add(worker);
        }
        if (halt) {
            while (write.acknowledged.get() < count) {
                Thread.sleep(5);
            }
            Runtime.getRuntime().halt(137);
        }
        for (Thread worker : workers) {
            worker.join();
        }
        JavaStore.awaitDispatch(store);
        store.shutdown();
        Runtime.getRuntime().halt(write.acknowledged.get() == count ? 0 : 1);
    }

    private void run(long end) {
        try {
            boolean batches = plan.name.equals("batch");
            for (long n = next.getAndAdd(batches ? 8 : 1); n < end; n = next.getAndAdd(batches ? 8 : 1)) {
                if (batches) {
                    putBatch(n);
                } else {
                    put(n);
                }
            }
        } catch (Throwable e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(2);
        }
    }

    private void put(long n) throws Exception {
        MessageExtBrokerInner m = plan.message(n);
        PutMessageResult result = store.putMessage(m);
        check(result);
        AppendMessageResult place = result.getAppendMessageResult();
        Ack a = Plan.ack(m);
        a.phyOffset = place.getWroteOffset();
        a.size = place.getWroteBytes();
        a.queueOffset = place.getLogicsOffset();
        a.storeTimestamp = place.getStoreTimestamp();
        tell(List.of(a));
    }

    /** Eight messages of one topic and queue in one append. */
    private void putBatch(long n) throws Exception {
        MessageExtBrokerInner head = plan.message(n);
        List<Message> parts = new ArrayList<>();
        List<Ack> told = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            MessageExtBrokerInner m = plan.message(n + i);
            m.setTopic(head.getTopic());
            m.setQueueId(head.getQueueId());
            m.setReconsumeTimes(head.getReconsumeTimes());
            m.setBornTimestamp(head.getBornTimestamp());
            parts.add(Plan.part(m));
            told.add(Plan.ack(m));
        }
        MessageExtBatch batch = new MessageExtBatch();
        batch.setTopic(head.getTopic());
        batch.setQueueId(head.getQueueId());
        batch.setReconsumeTimes(head.getReconsumeTimes());
        batch.setBornTimestamp(head.getBornTimestamp());
        batch.setBornHost(head.getBornHost());
        batch.setStoreHost(head.getStoreHost());
        batch.setBody(MessageDecoder.encodeMessages(parts));
        PutMessageResult result = store.putMessages(batch);
        check(result);
        AppendMessageResult place = result.getAppendMessageResult();
        String[] ids = place.getMsgId().split(",");
        for (int i = 0; i < 8; i++) {
            Ack a = told.get(i);
            a.phyOffset = MessageDecoder.decodeMessageId(ids[i]).getOffset();
            a.queueOffset = place.getLogicsOffset() + i;
            a.storeTimestamp = place.getStoreTimestamp();
        }
        tell(told);
    }

    private static void check(PutMessageResult result) {
        if (result.getPutMessageStatus() != PutMessageStatus.PUT_OK) {
            throw new IllegalStateException("put says " + result.getPutMessageStatus());
        }
    }

    private void tell(List<Ack> told) throws Exception {
        StringBuilder lines = new StringBuilder();
        for (Ack a : told) {
            lines.append(a.line());
        }
        synchronized (acks) {
            acks.write(lines.toString().getBytes(StandardCharsets.UTF_8));
        }
        acknowledged.addAndGet(told.size());
    }
}
