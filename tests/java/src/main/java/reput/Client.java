package reput;

import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Function;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * The stock client as two small programs around a restart of the broker.
 * Client send NAMESRV TOPIC PREFIX COUNT SENT       bodies PREFIX-0, PREFIX-1, …; a line in SENT for each SEND_OK.
 *                                                   COUNT 0: until the broker is gone.
 * Client receive NAMESRV TOPIC GROUP EXPECTED GOT SECONDS
 *                                                   until all lines of EXPECTED came, a line in GOT for each delivery
 * Client half NAMESRV TOPIC GROUP PREFIX COUNT SENT half messages that stay undecided; a line in SENT for each
 * Client decide NAMESRV TOPIC GROUP SENT COMMITTED SECONDS
 *                                                   until the broker asked about each line of SENT; commits those with
 *                                                   an even number, a line in COMMITTED for each, rolls back the others
 */
public final class Client {
    private Client() {
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        int status;
        switch (args[0]) {
            case "send":
                status = send(args[1], args[2], args[3], Integer.parseInt(args[4]), Path.of(args[5]));
                break;
            case "receive":
                status = receive(args[1], args[2], args[3], Path.of(args[4]), Path.of(args[5]), Integer.parseInt(args[6]));
                break;
            case "half":
                status = half(args[1], args[2], args[3], args[4], Integer.parseInt(args[5]), Path.of(args[6]));
                break;
            case "decide":
                status = decide(args[1], args[2], args[3], Path.of(args[4]), Path.of(args[5]), Integer.parseInt(args[6]));
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
        Runtime.getRuntime().halt(status);
    }

    private static int send(String namesrv, String topic, String prefix, int count, Path sent) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("PID_" + prefix);
        producer.setNamesrvAddr(namesrv);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(5000);
        producer.start();
        try (FileOutputStream out = new FileOutputStream(sent.toFile(), true)) {
            for (int n = 0; count == 0 || n < count; n++) {
                String body = prefix + "-" + n;
                Message m = new Message(topic, "Tag" + n % 3, "key-" + body, body.getBytes(StandardCharsets.UTF_8));
                SendResult result;
                try {
                    result = patiently(producer, m, count != 0 || n == 0);
                } catch (Exception e) {
                    if (count == 0) {
                        return 0;
                    }
                    throw e;
                }
                if (result.getSendStatus() == SendStatus.SEND_OK) {
                    out.write((body + "\n").getBytes(StandardCharsets.UTF_8));
                } else if (count != 0) {
                    throw new IllegalStateException("send of " + body + " says " + result.getSendStatus());
                }
            }
        }
        producer.shutdown();
        return 0;
    }

    /** A broker that has just started may need a moment until its routes are known, and RocketMQ's may call itself busy. */
    private static SendResult patiently(DefaultMQProducer producer, Message m, boolean patient) throws Exception {
        for (int attempt = 0; ; attempt++) {
            try {
                return producer.send(m);
            } catch (Exception e) {
                if (!patient || attempt == 40) {
                    throw e;
                }
                Thread.sleep(250);
            }
        }
    }

    private static int receive(String namesrv, String topic, String group, Path expected, Path got, int seconds) throws Exception {
        Set<String> missing = ConcurrentHashMap.newKeySet();
        for (String line : Files.readAllLines(expected)) {
            missing.add(line);
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPollNameServerInterval(1000);
        consumer.setHeartbeatBrokerInterval(1000);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.subscribe(topic, "*");
        try (FileOutputStream out = new FileOutputStream(got.toFile(), true)) {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                try {
                    for (MessageExt m : messages) {
                        String body = new String(m.getBody(), StandardCharsets.UTF_8);
                        synchronized (out) {
                            out.write((body + "\n").getBytes(StandardCharsets.UTF_8));
                        }
                        missing.remove(body);
                    }
                } catch (IOException e) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            long end = System.currentTimeMillis() + seconds * 1000L;
            while (!missing.isEmpty() && System.currentTimeMillis() < end) {
                Thread.sleep(50);
            }
            // What is delivered twice comes right behind.
            Thread.sleep(1500);
            consumer.shutdown();
        }
        if (!missing.isEmpty()) {
            System.out.println(missing.size() + " not received, such as " + new TreeSet<>(missing).first());
            return 1;
        }
        return 0;
    }

    private static TransactionMQProducer producer(String namesrv, String group, Function<MessageExt, LocalTransactionState> answer) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setNamesrvAddr(namesrv);
        producer.setPollNameServerInterval(1000);
        producer.setHeartbeatBrokerInterval(1000);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message m, Object argument) {
                return LocalTransactionState.UNKNOW;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                return answer.apply(m);
            }
        });
        producer.start();
        return producer;
    }

    private static int half(String namesrv, String topic, String group, String prefix, int count, Path sent) throws Exception {
        TransactionMQProducer producer = producer(namesrv, group, m -> LocalTransactionState.UNKNOW);
        try (FileOutputStream out = new FileOutputStream(sent.toFile(), true)) {
            for (int n = 0; n < count; n++) {
                String body = prefix + "-" + n;
                Message m = new Message(topic, "Tag" + n % 3, "key-" + body, body.getBytes(StandardCharsets.UTF_8));
                producer.sendMessageInTransaction(m, null);
                out.write((body + "\n").getBytes(StandardCharsets.UTF_8));
            }
        }
        producer.shutdown();
        return 0;
    }

    private static int decide(String namesrv, String topic, String group, Path sent, Path committed, int seconds) throws Exception {
        Set<String> missing = ConcurrentHashMap.newKeySet();
        missing.addAll(Files.readAllLines(sent));
        TransactionMQProducer producer = producer(namesrv, group, m -> {
            String body = new String(m.getBody(), StandardCharsets.UTF_8);
            missing.remove(body);
            return even(body) ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
        });
        // A producer tells a broker of itself once it has sent something there.
        patiently(producer, new Message(topic, "known".getBytes(StandardCharsets.UTF_8)), true);
        long end = System.currentTimeMillis() + seconds * 1000L;
        while (!missing.isEmpty() && System.currentTimeMillis() < end) {
            Thread.sleep(50);
        }
        // The answers are one-way.
        Thread.sleep(1000);
        producer.shutdown();
        if (!missing.isEmpty()) {
            System.out.println("not asked about " + missing.size() + ", such as " + new TreeSet<>(missing).first());
            return 1;
        }
        try (FileOutputStream out = new FileOutputStream(committed.toFile(), true)) {
            for (String body : Files.readAllLines(sent)) {
                if (even(body)) {
                    out.write((body + "\n").getBytes(StandardCharsets.UTF_8));
                }
            }
        }
        return 0;
    }

    private static boolean even(String body) {
        return Integer.parseInt(body.substring(body.lastIndexOf('-') + 1)) % 2 == 0;
    }
}
