package reput;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMachineRoomNearby;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByConfig;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByMachineRoom;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The stock client's six ways to share a topic's queues between the consumers of a group.
 * Allocation NAMESRV ROOM@BROKER
 * For each: two consumers, a message to every queue again and again until both have queues that the other has not, then
 * one to each: it comes once, to the owner of its queue. Prints PASS or FAIL a strategy.
 */
public final class Allocation {
    private static final int QUEUES = 8;
    private static final long PATIENCE_MS = 60_000;

    private Allocation() {
    }

    public static void main(String[] args) {
        int status = 1;
        try {
            status = run(args[0], args[1]) ? 0 : 1;
        } catch (Exception e) {
            e.printStackTrace();
        }
        Runtime.getRuntime().halt(status);
    }

    private static boolean run(String namesrv, String broker) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("PID_allocation");
        producer.setNamesrvAddr(namesrv);
        producer.setDefaultTopicQueueNums(QUEUES);
        producer.start();
        Map<String, Function<Integer, AllocateMessageQueueStrategy>> strategies = new LinkedHashMap<>();
        strategies.put("averagely", member -> new AllocateMessageQueueAveragely());
        strategies.put("by_circle", member -> new AllocateMessageQueueAveragelyByCircle());
        strategies.put("by_config", member -> byConfig(broker, member));
        strategies.put("by_machine_room", member -> {
            AllocateMessageQueueByMachineRoom rooms = new AllocateMessageQueueByMachineRoom();
            rooms.setConsumeridcs(Set.of(broker.split("@")[0]));
            return rooms;
        });
        strategies.put("consistent_hash", member -> new AllocateMessageQueueConsistentHash());
        strategies.put("machine_room_nearby", member -> new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(),
            new AllocateMachineRoomNearby.MachineRoomResolver() {
                @Override
                public String brokerDeployIn(MessageQueue queue) {
                    return queue.getBrokerName().split("@")[0];
                }

                @Override
                public String consumerDeployIn(String clientId) {
                    return broker.split("@")[0];
                }
            }));
        boolean all = true;
        for (Map.Entry<String, Function<Integer, AllocateMessageQueueStrategy>> one : strategies.entrySet()) {
            String why = shared(producer, namesrv, broker, one.getKey(), one.getValue());
            System.out.println((why.isEmpty() ? "PASS " : "FAIL ") + one.getKey() + " " + why);
            all &= why.isEmpty();
        }
        return all;
    }

    private static AllocateMessageQueueStrategy byConfig(String broker, int member) {
        // The topic stands in each queue, and is known when the consumer is.
        return new AllocateMessageQueueByConfig() {
            @Override
            public List<MessageQueue> allocate(String group, String id, List<MessageQueue> queues, List<String> ids) {
                List<MessageQueue> own = new ArrayList<>();
                queues.stream().filter(queue -> queue.getQueueId() % 2 == member).forEach(own::add);
                setMessageQueueList(own);
                return super.allocate(group, id, queues, ids);
            }
        };
    }

    /** Why a strategy did not share the queues; empty when it did. */
    private static String shared(DefaultMQProducer producer, String namesrv, String broker, String name,
        Function<Integer, AllocateMessageQueueStrategy> strategy) throws Exception {
        String topic = "Allocation_" + name;
        send(producer, topic, broker, "first", true);
        List<DefaultMQPushConsumer> members = new ArrayList<>();
        List<Map<Integer, Set<String>>> got = new ArrayList<>();
        AtomicInteger deliveries = new AtomicInteger();
        for (int member = 0; member < 2; member++) {
            Map<Integer, Set<String>> own = new ConcurrentHashMap<>();
            got.add(own);
            DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("GID_" + name);
            consumer.setNamesrvAddr(namesrv);
            consumer.setInstanceName(name + member);
            consumer.setAllocateMessageQueueStrategy(strategy.apply(member));
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            consumer.setHeartbeatBrokerInterval(1_000);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                for (MessageExt m : messages) {
                    String body = new String(m.getBody(), StandardCharsets.UTF_8);
                    own.computeIfAbsent(m.getQueueId(), q -> ConcurrentHashMap.newKeySet()).add(body);
                    if (body.startsWith("last")) {
                        deliveries.incrementAndGet();
                    }
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            members.add(consumer);
        }
        try {
            long end = System.currentTimeMillis() + PATIENCE_MS;
            for (int turn = 0; ; turn++) {
                String mark = "turn" + turn;
                send(producer, topic, broker, mark, false);
                Thread.sleep(500);
                Set<Integer> a = queuesOf(got.get(0), mark);
                Set<Integer> b = queuesOf(got.get(1), mark);
                Set<Integer> both = new TreeSet<>(a);
                both.addAll(b);
                if (!a.isEmpty() && !b.isEmpty() && a.size() + b.size() == QUEUES && both.size() == QUEUES) {
                    break;
                }
                if (System.currentTimeMillis() > end) {
                    return "the members have " + a + " and " + b;
                }
            }
            send(producer, topic, broker, "last", false);
            while (deliveries.get() < QUEUES && System.currentTimeMillis() < end) {
                Thread.sleep(50);
            }
            Thread.sleep(500);
            return deliveries.get() == QUEUES ? "" : deliveries.get() + " deliveries of " + QUEUES;
        } finally {
            members.forEach(DefaultMQPushConsumer::shutdown);
        }
    }

    private static Set<Integer> queuesOf(Map<Integer, Set<String>> got, String mark) {
        Set<Integer> queues = new TreeSet<>();
        new HashMap<>(got).forEach((queue, bodies) -> {
            if (bodies.contains(mark)) {
                queues.add(queue);
            }
        });
        return queues;
    }

    /** One message to each queue. */
    private static void send(DefaultMQProducer producer, String topic, String broker, String body, boolean first) throws Exception {
        for (int queue = 0; queue < QUEUES; queue++) {
            Message m = new Message(topic, body.getBytes(StandardCharsets.UTF_8));
            for (int attempt = 0; ; attempt++) {
                try {
                    if (first && queue == 0) {
                        // Makes the topic.
                        producer.send(m);
                    } else {
                        producer.send(m, new MessageQueue(topic, broker, queue));
                    }
                    break;
                } catch (Exception e) {
                    // A broker that has just started may need a moment until its routes are known.
                    if (attempt == 40) {
                        throw e;
                    }
                    Thread.sleep(250);
                }
            }
        }
    }
}
