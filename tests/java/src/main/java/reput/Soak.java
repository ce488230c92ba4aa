package reput;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * The stock client with everything at once, over whatever happens to the broker.
 * Soak NAMESRV SECONDS RATE DRAIN
 * Sends RATE messages a second of each kind for SECONDS, then waits DRAIN seconds at most for what is still to come.
 * Whoever kills the broker meanwhile writes a line to the standard input for each time. Prints `KIND key=value ...`
 * for each kind; the exit code is 1 when a promise was broken:
 * what was acknowledged came; what was rolled back did not; nothing came before its time; the messages of a key came
 * first in their order; and none came more often than retries, kills and changes of the group explain.
 */
public final class Soak {
    private static final AtomicInteger DISTURBANCES = new AtomicInteger();
    private static final List<DefaultMQPushConsumer> CONSUMERS = new ArrayList<>();
    private static String namesrv;
    private static volatile boolean sending = true;

    private Soak() {
    }

    /** What is known of one message. */
    private static final class Fate {
        volatile boolean acknowledged;
        volatile boolean forbidden;
        final AtomicInteger deliveries = new AtomicInteger();
        /** Disturbances before it was sent: of those that came later each may deliver it once more. */
        final int before = DISTURBANCES.get();
        volatile long due;
        volatile int deliberate;
    }

    /** One topic and what is sent to it. */
    private abstract static class Kind {
        final String name;
        final String topic;
        final Map<Long, Fate> fates = new ConcurrentHashMap<>();
        final AtomicLong early = new AtomicLong();
        final AtomicLong disorder = new AtomicLong();
        final AtomicLong refused = new AtomicLong();
        final AtomicLong strangers = new AtomicLong();

        Kind(String name) {
            this.name = name;
            this.topic = "Soak_" + name;
        }

        abstract void send(long n, Fate fate) throws Exception;

        Message message(long n) {
            return new Message(topic, "T", "key-" + name + "-" + n, Long.toString(n).getBytes(StandardCharsets.UTF_8));
        }

        /** Notes a delivery; whether it is to be tried again. */
        boolean got(MessageExt m) {
            long n = Long.parseLong(new String(m.getBody(), StandardCharsets.UTF_8));
            Fate fate = fates.get(n);
            if (fate == null) {
                strangers.incrementAndGet();
                return false;
            }
            fate.deliveries.incrementAndGet();
            // The clock of a delay starts in the broker, and a second of the wheel is its first half too.
            if (fate.due > 0 && System.currentTimeMillis() < fate.due - 1500) {
                early.incrementAndGet();
            }
            return retried(n, m, fate);
        }

        boolean retried(long n, MessageExt m, Fate fate) {
            return false;
        }

        void run(int rate) {
            long pause = 1_000_000_000L / rate;
            long next = System.nanoTime();
            for (long n = 0; sending; n++) {
                next += pause;
                Fate fate = new Fate();
                fates.put(n, fate);
                try {
                    send(n, fate);
                } catch (Exception e) {
                    // Whether it was stored is unknown; nothing is promised.
                    refused.incrementAndGet();
                    nap(100);
                }
                long left = next - System.nanoTime();
                if (left > 0) {
                    nap(left / 1_000_000);
                } else {
                    next = System.nanoTime();
                }
            }
        }

        long missing() {
            return fates.values().stream().filter(fate -> fate.acknowledged && fate.deliveries.get() == 0).count();
        }

        /** One line of figures; whether every promise was kept. */
        boolean report() {
            long acknowledged = 0;
            long delivered = 0;
            long again = 0;
            long unexplained = 0;
            long forbidden = 0;
            TreeSet<Long> lost = new TreeSet<>();
            for (Map.Entry<Long, Fate> entry : fates.entrySet()) {
                Fate fate = entry.getValue();
                int times = fate.deliveries.get();
                acknowledged += fate.acknowledged ? 1 : 0;
                delivered += times;
                again += Math.max(0, times - 1);
                int allowed = 1 + fate.deliberate + DISTURBANCES.get() - fate.before;
                unexplained += times > allowed ? 1 : 0;
                forbidden += fate.forbidden && times > 0 ? 1 : 0;
                if (fate.acknowledged && times == 0) {
                    lost.add(entry.getKey());
                }
            }
            boolean kept = lost.isEmpty() && unexplained == 0 && forbidden == 0 && early.get() == 0
                && disorder.get() == 0 && strangers.get() == 0 && acknowledged > 0;
            System.out.printf("%s %s acknowledged=%d delivered=%d again=%d refused=%d lost=%d unexplained=%d forbidden=%d early=%d disorder=%d strangers=%d%s%n",
                kept ? "PASS" : "FAIL", name, acknowledged, delivered, again, refused.get(), lost.size(), unexplained, forbidden,
                early.get(), disorder.get(), strangers.get(), lost.isEmpty() ? "" : " first lost " + lost.first());
            return kept;
        }
    }

    /** Sent at once, or later when `level` or `seconds` say so; every 50th is given back once. */
    private static final class Plain extends Kind {
        private final DefaultMQProducer producer;
        private final int level;
        private final int seconds;

        Plain(String name, DefaultMQProducer producer, int level, int seconds) {
            super(name);
            this.producer = producer;
            this.level = level;
            this.seconds = seconds;
        }

        @Override
        void send(long n, Fate fate) throws Exception {
            Message m = message(n);
            fate.deliberate = n % 50 == 7 ? 1 : 0;
            long now = System.currentTimeMillis();
            if (level > 0) {
                m.setDelayTimeLevel(level);
                fate.due = now + (level == 1 ? 1000 : 5000);
            } else if (seconds > 0) {
                m.setDelayTimeSec(seconds);
                fate.due = now + seconds * 1000L;
            }
            if (producer.send(m).getSendStatus() == SendStatus.SEND_OK) {
                fate.acknowledged = true;
            }
        }

        @Override
        boolean retried(long n, MessageExt m, Fate fate) {
            return fate.deliberate > 0 && fate.deliveries.get() == 1;
        }
    }

    /** 16 keys, each sent to its own queue, so that each is an order. */
    private static final class Ordered extends Kind {
        private static final int KEYS = 16;
        private final DefaultMQProducer producer;
        private final Map<Long, Long> last = new ConcurrentHashMap<>();

        Ordered(DefaultMQProducer producer) {
            super("ordered");
            this.producer = producer;
        }

        @Override
        void send(long n, Fate fate) throws Exception {
            if (producer.send(message(n), (queues, m, key) -> queues.get((int) ((Long) key % queues.size())), n % KEYS)
                .getSendStatus() == SendStatus.SEND_OK) {
                fate.acknowledged = true;
            }
        }

        @Override
        boolean retried(long n, MessageExt m, Fate fate) {
            if (fate.deliveries.get() == 1) {
                Long before = last.put(n % KEYS, n);
                if (before != null && before > n) {
                    disorder.incrementAndGet();
                }
            }
            return false;
        }
    }

    /** By their number: committed at once, rolled back, or undecided until the broker asks. */
    private static final class Transactions extends Kind implements TransactionListener {
        private final TransactionMQProducer producer = new TransactionMQProducer("PID_soak_transactions");

        Transactions() throws Exception {
            super("transactions");
            producer.setNamesrvAddr(namesrv);
            producer.setInstanceName("transactions");
            producer.setSendMsgTimeout(5000);
            producer.setRetryTimesWhenSendFailed(0);
            producer.setTransactionListener(this);
            producer.start();
        }

        private static LocalTransactionState end(long n) {
            return n % 3 == 1 ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
        }

        @Override
        public LocalTransactionState executeLocalTransaction(Message m, Object number) {
            long n = (Long) number;
            return n % 4 == 3 ? LocalTransactionState.UNKNOW : end(n);
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt m) {
            return end(Long.parseLong(new String(m.getBody(), StandardCharsets.UTF_8)));
        }

        @Override
        void send(long n, Fate fate) throws Exception {
            boolean commits = end(n) == LocalTransactionState.COMMIT_MESSAGE;
            fate.forbidden = !commits;
            if (producer.sendMessageInTransaction(message(n), n).getSendStatus() == SendStatus.SEND_OK) {
                fate.acknowledged = commits;
            }
        }
    }

    private static void nap(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static DefaultMQPushConsumer consumer(Kind kind, String instance) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("GID_soak_" + kind.name);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPollNameServerInterval(3000);
        consumer.setHeartbeatBrokerInterval(3000);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.subscribe(kind.topic, "*");
        if (kind instanceof Ordered) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                messages.forEach(kind::got);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            // One at a time: what is given back is one message.
            consumer.setConsumeMessageBatchMaxSize(1);
            consumer.setClientRebalance(!kind.name.equals("pop"));
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                context.setDelayLevelWhenNextConsume(1);
                boolean again = false;
                for (MessageExt m : messages) {
                    again |= kind.got(m);
                }
                return again ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        return consumer;
    }

    private static void listen() {
        try {
            while (System.in.read() >= 0) {
                DISTURBANCES.incrementAndGet();
            }
        } catch (java.io.IOException e) {
            throw new IllegalStateException(e);
        }
    }

    private static Thread start(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        namesrv = args[0];
        long end = System.currentTimeMillis() + Integer.parseInt(args[1]) * 1000L;
        int rate = Integer.parseInt(args[2]);
        long drain = Integer.parseInt(args[3]) * 1000L;
        DefaultMQProducer producer = new DefaultMQProducer("PID_soak");
        producer.setNamesrvAddr(namesrv);
        producer.setSendMsgTimeout(5000);
        // A send that is tried again may be stored twice, which is the producer's doing.
        producer.setRetryTimesWhenSendFailed(0);
        producer.start();
        List<Kind> kinds = List.of(new Plain("plain", producer, 0, 0), new Plain("delay", producer, 2, 0),
            new Plain("timed", producer, 0, 3), new Plain("pop", producer, 0, 0), new Ordered(producer), new Transactions());
        start(Soak::listen);
        List<Thread> senders = new ArrayList<>();
        for (Kind kind : kinds) {
            senders.add(start(() -> kind.run(rate)));
        }
        nap(2000);
        for (Kind kind : kinds) {
            CONSUMERS.add(consumer(kind, "stays-" + kind.name));
        }
        // A member that comes and goes, in turn in each group.
        for (int turn = 0; System.currentTimeMillis() < end; turn++) {
            Kind kind = kinds.get(turn % kinds.size());
            DISTURBANCES.incrementAndGet();
            DefaultMQPushConsumer guest = consumer(kind, "guest-" + turn);
            nap(Math.min(8000, Math.max(1, end - System.currentTimeMillis())));
            DISTURBANCES.incrementAndGet();
            guest.shutdown();
            nap(Math.min(4000, Math.max(1, end - System.currentTimeMillis())));
        }
        sending = false;
        for (Thread sender : senders) {
            sender.join();
        }
        long until = System.currentTimeMillis() + drain;
        while (kinds.stream().mapToLong(Kind::missing).sum() > 0 && System.currentTimeMillis() < until) {
            nap(200);
        }
        // What must not come would come now.
        nap(3000);
        Set<Boolean> kept = ConcurrentHashMap.newKeySet();
        for (Kind kind : kinds) {
            kept.add(kind.report());
        }
        Runtime.getRuntime().halt(kept.contains(false) ? 1 : 0);
    }
}
