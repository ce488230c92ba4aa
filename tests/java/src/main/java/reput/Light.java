package reput;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Light queues by the stock client.
 * Light NAMESRV PARENT FROM COUNT
 * Sends the numbers from FROM on to PARENT, each to the light queue `all`, the even ones to `even` too; then reads both
 * queues from where their group is, which must be what was sent just now, and commits. The exit code is 0 then.
 */
public final class Light {
    private static final String GROUP = "%LMQ%readers";
    private static final String BROKER = "broker-a";

    private Light() {
    }

    public static void main(String[] args) {
        int status = 1;
        try {
            status = run(args) ? 0 : 1;
        } catch (Exception e) {
            e.printStackTrace();
        }
        Runtime.getRuntime().halt(status);
    }

    private static boolean run(String[] args) throws Exception {
        int from = Integer.parseInt(args[2]);
        int count = Integer.parseInt(args[3]);
        DefaultMQProducer producer = new DefaultMQProducer("PID_light");
        producer.setNamesrvAddr(args[0]);
        producer.start();
        for (int n = from; n < from + count; n++) {
            Message m = new Message(args[1], Integer.toString(n).getBytes(StandardCharsets.UTF_8));
            String queues = n % 2 == 0 ? "%LMQ%all,%LMQ%even" : "%LMQ%all";
            MessageAccessor.putProperty(m, MessageConst.PROPERTY_INNER_MULTI_DISPATCH, queues);
            if (send(producer, m) != SendStatus.SEND_OK) {
                throw new IllegalStateException("not sent: " + n);
            }
        }
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(GROUP);
        consumer.setNamesrvAddr(args[0]);
        consumer.start();
        // The route of the parent leads to the broker; light queues have none.
        consumer.getDefaultMQPullConsumerImpl().getRebalanceImpl().getmQClientFactory().updateTopicRouteInfoFromNameServer(args[1]);
        List<String> all = new ArrayList<>();
        List<String> even = new ArrayList<>();
        for (int n = from; n < from + count; n++) {
            all.add(Integer.toString(n));
            if (n % 2 == 0) {
                even.add(Integer.toString(n));
            }
        }
        return read(consumer, "%LMQ%all", from, all) & read(consumer, "%LMQ%even", (from + 1) / 2, even);
    }

    private static SendStatus send(DefaultMQProducer producer, Message m) throws Exception {
        for (int attempt = 0; ; attempt++) {
            try {
                return producer.send(m).getSendStatus();
            } catch (Exception e) {
                // A broker that has just started may need a moment until its routes are known.
                if (attempt == 40) {
                    throw e;
                }
                Thread.sleep(250);
            }
        }
    }

    private static boolean read(DefaultMQPullConsumer consumer, String topic, long before, List<String> expected) throws Exception {
        MessageQueue queue = new MessageQueue(topic, BROKER, 0);
        List<String> got = new ArrayList<>();
        long at = Math.max(0, consumer.fetchConsumeOffset(queue, true));
        long start = at;
        long end = System.currentTimeMillis() + 20_000;
        while (got.size() < expected.size() && System.currentTimeMillis() < end) {
            PullResult pulled = consumer.pull(queue, "*", at, 32);
            if (pulled.getPullStatus() == PullStatus.FOUND) {
                for (MessageExt m : pulled.getMsgFoundList()) {
                    got.add(new String(m.getBody(), StandardCharsets.UTF_8));
                }
                at = pulled.getNextBeginOffset();
            } else {
                Thread.sleep(100);
            }
        }
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().updateConsumeOffsetToBroker(queue, at, false);
        long max = consumer.maxOffset(queue);
        boolean right = got.equals(expected) && start == before && max == at && consumer.minOffset(queue) == 0
            && consumer.fetchConsumeOffset(queue, true) == at;
        System.out.println((right ? "" : "wrong: ") + topic + " from " + start + " (" + before + ") to " + at + " of " + max + ": " + got);
        return right;
    }
}
