package reput;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.PutMessageStatus;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * The published store, told on standard input what to measure, one command a line; the answer is one line of JSON behind
 * a mark. It ends when its input does. The store runs as fast as it can be set up to: queues through mappings, no
 * compaction.
 *
 * <pre>
 * put DIR sync|async BODY THREADS BATCH WARM_MS MS MAX_BYTES   a fresh store in DIR
 * reput DIR SEGMENT index|queues                               queues and index anew, for the log in DIR
 * pull DIR SEGMENT THREADS BATCH WARM_MS MS                    from the store in DIR
 * </pre>
 */
public final class StoreBench {
    private static final String MARK = "reput-bench ";
    private static final String TOPIC = "T00000";
    private static final int QUEUES = 8;
    private static final InetSocketAddress HOST = new InetSocketAddress("127.0.0.1", 10911);
    private static final String TAGGED = "TAGS\u0001TagA\u0002";
    private static DefaultMessageStore pulled;
    private static String pulledFrom = "";

    private StoreBench() {
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        out.println(MARK + "{}");
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                answer = answer(line.split("\t"));
            } catch (Throwable failure) {
                answer = "{\"error\":\"" + failure.toString().replaceAll("[\"\\\\\\p{Cntrl}]", " ") + "\"}";
            }
            out.println(MARK + answer);
        }
        Runtime.getRuntime().halt(0);
    }

    private static String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "put":
                return put(words[1], words[2].equals("sync"), integer(words[3]), integer(words[4]), integer(words[5]),
                    integer(words[6]), integer(words[7]), Long.parseLong(words[8]));
            case "reput":
                return reput(words[1], integer(words[2]), words[3].equals("index"));
            case "pull":
                return pull(words[1], integer(words[2]), integer(words[3]), integer(words[4]), integer(words[5]),
                    integer(words[6]));
            default:
                throw new IllegalArgumentException("no such command: " + words[0]);
        }
    }

    private static int integer(String word) {
        return Integer.parseInt(word);
    }

    private static DefaultMessageStore open(String dir, MessageStoreConfig config) throws Exception {
        config.setStorePathRootDir(dir);
        config.setStorePathCommitLog(dir + File.separator + "commitlog");
        config.setHaListenPort(0);
        config.setPutConsumeQueueDataByFileChannel(false);
        config.setEnableCompaction(false);
        config.setDiskMaxUsedSpaceRatio(95);
        System.setProperty("rocketmq.broker.diskSpaceWarningLevelRatio", "0.99");
        BrokerConfig broker = new BrokerConfig();
        DefaultMessageStore store = new DefaultMessageStore(config,
            new BrokerStatsManager(broker.getBrokerClusterName(), broker.isEnableDetailStat()), null, broker,
            new ConcurrentHashMap<>());
        if (!store.load()) {
            throw new IllegalStateException("the Java store refuses to load " + dir);
        }
        store.start();
        return store;
    }

    private static void awaitDispatch(DefaultMessageStore store) throws InterruptedException {
        while (store.dispatchBehindBytes() > 0) {
            Thread.sleep(0, 200_000);
        }
    }

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime();
    }

    private static MessageExtBrokerInner single(int queue, byte[] body) {
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        fill(message, queue, body);
        message.setPropertiesString(TAGGED);
        message.setTagsCode("TagA".hashCode());
        return message;
    }

    private static void fill(MessageExtBrokerInner message, int queue, byte[] body) {
        message.setTopic(TOPIC);
        message.setQueueId(queue);
        message.setBody(body);
        message.setBornTimestamp(1_700_000_000_000L);
        message.setBornHost(HOST);
        message.setStoreHost(HOST);
        message.setTags("TagA");
    }

    private static MessageExtBatch batch(int queue, byte[] body, int count) {
        List<Message> parts = new ArrayList<>(count);
        for (int n = 0; n < count; n++) {
            parts.add(new Message(TOPIC, "TagA", body));
        }
        MessageExtBatch batch = new MessageExtBatch();
        fill(batch, queue, MessageDecoder.encodeMessages(parts));
        return batch;
    }

    private static String put(String dir, boolean sync, int body, int threads, int batch, int warm, int ms, long most)
        throws Exception {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setFlushDiskType(sync ? FlushDiskType.SYNC_FLUSH : FlushDiskType.ASYNC_FLUSH);
        DefaultMessageStore store = open(dir, config);
        byte[] bytes = new byte[body];
        Run run = new Run(threads, warm, ms, store::getMaxPhyOffset, most, (number, turn) -> {
            int queue = (int) ((number + turn) % QUEUES);
            PutMessageResult result = batch == 1 ? store.putMessage(single(queue, bytes))
                : store.putMessages(batch(queue, bytes, batch));
            if (result.getPutMessageStatus() != PutMessageStatus.PUT_OK) {
                throw new IllegalStateException("put says " + result.getPutMessageStatus());
            }
            return batch;
        });
        run.measure();
        awaitDispatch(store);
        String answer = run.json(true);
        store.shutdown();
        store.destroy();
        return answer;
    }

    private static String reput(String dir, int segment, boolean index) throws Exception {
        closePulled();
        for (String name : new String[] {"consumequeue", "index", "checkpoint", "abort"}) {
            remove(new File(dir, name));
        }
        MessageStoreConfig config = new MessageStoreConfig();
        config.setMappedFileSizeCommitLog(segment);
        config.setMessageIndexEnable(index);
        long cpu = cpuNanos();
        long start = System.nanoTime();
        DefaultMessageStore store = open(dir, config);
        awaitDispatch(store);
        double seconds = (System.nanoTime() - start) / 1e9;
        double used = (cpuNanos() - cpu) / 1e9;
        long messages = 0;
        for (int queue = 0; queue < QUEUES; queue++) {
            messages += store.getMaxOffsetInQueue(TOPIC, queue);
        }
        store.shutdown();
        return "{\"units\":" + messages + ",\"seconds\":" + seconds + ",\"cpu_s\":" + used + "}";
    }

    private static String pull(String dir, int segment, int threads, int batch, int warm, int ms) throws Exception {
        if (!pulledFrom.equals(dir)) {
            closePulled();
            MessageStoreConfig config = new MessageStoreConfig();
            config.setMappedFileSizeCommitLog(segment);
            pulled = open(dir, config);
            pulledFrom = dir;
            awaitDispatch(pulled);
        }
        DefaultMessageStore store = pulled;
        long[] at = new long[threads];
        Run run = new Run(threads, warm, ms, () -> 0, Long.MAX_VALUE, (number, turn) -> {
            GetMessageResult result = store.getMessage("reput", TOPIC, number % QUEUES, at[number], batch, null);
            int found = result.getMessageCount();
            long next = result.getNextBeginOffset();
            result.release();
            at[number] = found == 0 || next <= at[number] ? 0 : next;
            return found;
        });
        run.measure();
        return run.json(false);
    }

    private static void closePulled() {
        if (pulled != null) {
            pulled.shutdown();
            pulled = null;
            pulledFrom = "";
        }
    }

    private static void remove(File file) {
        File[] within = file.listFiles();
        if (within != null) {
            for (File part : within) {
                remove(part);
            }
        }
        file.delete();
    }

    /** One call of one thread; says how many units it did. */
    private interface Call {
        int make(int thread, long turn) throws Exception;
    }

    /** Bytes written so far. */
    private interface Bytes {
        long now();
    }

    /** Threads that call for a while, closed loop, each call timed. */
    private static final class Run {
        private final int threads;
        private final int warm;
        private final int ms;
        private final Bytes bytes;
        private final long most;
        private final Call call;
        private final LongAdder units = new LongAdder();
        private final AtomicInteger phase = new AtomicInteger();
        /** 32 buckets for each power of two of nanoseconds. */
        private final long[][] counts;
        private volatile Throwable failure;
        private long started;
        private long cpuStarted;
        private double seconds;

        Run(int threads, int warm, int ms, Bytes bytes, long most, Call call) {
            this.threads = threads;
            this.warm = warm;
            this.ms = ms;
            this.bytes = bytes;
            this.most = most;
            this.call = call;
            this.counts = new long[threads][64 * 32];
        }

        void measure() throws Exception {
            List<Thread> all = new ArrayList<>();
            for (int n = 0; n < threads; n++) {
                int number = n;
                Thread thread = new Thread(() -> work(number));
                all.add(thread);
                thread.start();
            }
            Thread.sleep(warm);
            long from = bytes.now();
            cpuStarted = cpuNanos();
            started = System.nanoTime();
            units.reset();
            phase.compareAndSet(0, 1);
            while (System.nanoTime() - started < ms * 1_000_000L && bytes.now() - from < most && phase.get() == 1) {
                Thread.sleep(5);
            }
            seconds = (System.nanoTime() - started) / 1e9;
            long done = units.sum();
            phase.set(2);
            for (Thread thread : all) {
                thread.join();
            }
            units.reset();
            units.add(done);
            if (failure != null) {
                throw new IllegalStateException(failure);
            }
        }

        private void work(int number) {
            long[] own = counts[number];
            try {
                for (long turn = 0; phase.get() < 2; turn++) {
                    long start = System.nanoTime();
                    int done = call.make(number, turn);
                    long nanos = Math.max(32, System.nanoTime() - start);
                    if (phase.get() == 1) {
                        int power = 63 - Long.numberOfLeadingZeros(nanos);
                        own[power * 32 + (int) (nanos >>> (power - 5) & 31)]++;
                    }
                    units.add(done);
                }
            } catch (Throwable thrown) {
                failure = thrown;
                phase.set(2);
            }
        }

        /** The answer; time and processor until now count when the queues were waited for. */
        String json(boolean followed) {
            StringBuilder text = new StringBuilder("{\"units\":").append(units.sum());
            text.append(",\"seconds\":").append(seconds);
            text.append(",\"cpu_s\":").append((cpuNanos() - cpuStarted) / 1e9);
            if (followed) {
                text.append(",\"followed_s\":").append((System.nanoTime() - started) / 1e9);
            }
            text.append(",\"nanos\":[");
            String between = "";
            for (int bucket = 0; bucket < 64 * 32; bucket++) {
                long sum = 0;
                for (long[] own : counts) {
                    sum += own[bucket];
                }
                if (sum > 0) {
                    int power = bucket / 32;
                    double middle = (32 + bucket % 32 + 0.5) * Math.pow(2, power - 5);
                    text.append(between).append('[').append(Math.round(middle)).append(',').append(sum).append(']');
                    between = ",";
                }
            }
            return text.append("]}").toString();
        }
    }
}
