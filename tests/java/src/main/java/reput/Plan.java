package reput;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Random;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;

/** Which messages a case is made of. The writer on the other side has the same plans under the same names. */
final class Plan {
    static final String BATCH_TOPIC = "BatchQueue";
    private static final String[] TAGS = {null, "TagA", "TagB", "a tag with spaces", "ümläut"};

    final String name;
    final int topics;
    final int queues;
    final int maxBody;

    Plan(String name, int topics, int queues, int maxBody) {
        this.name = name;
        this.topics = topics;
        this.queues = queues;
        this.maxBody = maxBody;
    }

    /** Message number n; the same number gives the same message, but for its times. */
    MessageExtBrokerInner message(long n) throws Exception {
        Random random = new Random(n * 0x9E3779B97F4A7C15L + name.hashCode());
        random.nextInt();
        MessageExtBrokerInner m = new MessageExtBrokerInner();
        m.setTopic(topic((int) Math.floorMod(n, (long) topics)));
        m.setQueueId(random.nextInt(queues));
        byte[] body = new byte[random.nextInt(8) == 0 ? 0 : random.nextInt(maxBody + 1)];
        random.nextBytes(body);
        m.setBody(body);
        m.setFlag(random.nextInt());
        m.setBornTimestamp(System.currentTimeMillis());
        m.setBornHost(address(name.equals("ipv6") ? "2001:db8::" + Long.toHexString(n & 0xffff) : "10.1.2.3", 40000));
        m.setStoreHost(address(name.equals("ipv6") && n % 2 == 0 ? "::1" : "127.0.0.1", 10911));
        if (name.equals("ipv6")) {
            m.setBornHostV6Flag();
            if (n % 2 == 0) {
                m.setStoreHostAddressV6Flag();
            }
        }
        m.setReconsumeTimes(random.nextInt(4));
        String tag = TAGS[random.nextInt(TAGS.length)];
        if (tag != null) {
            m.setTags(tag);
        }
        m.setKeys("key-" + n + " shared-" + n % 97);
        MessageAccessor.putProperty(m, MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX, uniqKey(n));
        m.putUserProperty("user", "value of " + n);
        special(m, n, random);
        m.setPropertiesString(MessageDecoder.messageProperties2String(m.getProperties()));
        m.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(null, m.getTags()));
        return m;
    }

    private void special(MessageExtBrokerInner m, long n, Random random) {
        switch (name) {
            case "delay":
                if (n % 3 == 0) {
                    m.setTopic("SCHEDULE_TOPIC_XXXX");
                    int level = 1 + random.nextInt(18);
                    m.setDelayTimeLevel(level);
                    m.setQueueId(level - 1);
                    MessageAccessor.putProperty(m, MessageConst.PROPERTY_REAL_TOPIC, topic(0));
                    MessageAccessor.putProperty(m, MessageConst.PROPERTY_REAL_QUEUE_ID, "0");
                }
                break;
            case "transactions":
                m.setSysFlag(MessageSysFlag.resetTransactionValue(m.getSysFlag(), random.nextInt(4) << 2));
                m.setPreparedTransactionOffset(random.nextInt(1 << 20));
                break;
            case "lmq":
                if (n % 2 == 0) {
                    MessageAccessor.putProperty(m, MessageConst.PROPERTY_INNER_MULTI_DISPATCH, "%LMQ%left-" + n % 6 + ",%LMQ%right");
                }
                break;
            case "batch-queue":
                m.setTopic(BATCH_TOPIC);
                m.setSysFlag(m.getSysFlag() | MessageSysFlag.INNER_BATCH_FLAG);
                MessageAccessor.putProperty(m, MessageConst.PROPERTY_INNER_NUM, Integer.toString(1 + random.nextInt(5)));
                break;
            default:
        }
    }

    String topic(int i) {
        String base = name.equals("long-topics") ? "x".repeat(120 + i % 2 * 60) : "Topic";
        return base + "-" + i;
    }

    private static String uniqKey(long n) {
        return String.format("7F000001%024X", n);
    }

    private static InetSocketAddress address(String host, int port) throws Exception {
        return new InetSocketAddress(InetAddress.getByName(host), port);
    }

    static Ack ack(MessageExt m) {
        Ack a = new Ack();
        a.topic = m.getTopic();
        a.queueId = m.getQueueId();
        a.sysFlag = m.getSysFlag();
        a.flag = m.getFlag();
        a.bornTimestamp = m.getBornTimestamp();
        a.bornHost = hostText(m.getBornHost());
        a.storeHost = hostText(m.getStoreHost());
        a.reconsumeTimes = m.getReconsumeTimes();
        a.preparedTransactionOffset = m.getPreparedTransactionOffset();
        a.bodyLength = m.getBody() == null ? 0 : m.getBody().length;
        a.bodyCrc = m.getBody() == null ? 0 : Ack.crc(m.getBody());
        a.tags = m.getTags();
        a.keys = m.getKeys();
        a.uniqKey = m.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX);
        a.user = m.getProperty("user");
        a.delayLevel = m.getDelayTimeLevel();
        a.lmq = m.getProperty(MessageConst.PROPERTY_INNER_MULTI_DISPATCH);
        String inner = m.getProperty(MessageConst.PROPERTY_INNER_NUM);
        a.innerNum = inner == null ? 0 : Integer.parseInt(inner);
        return a;
    }

    /** One spelling for both sides: the raw address in hex, then the port. */
    static String hostText(java.net.SocketAddress address) {
        InetSocketAddress inet = (InetSocketAddress) address;
        StringBuilder text = new StringBuilder();
        for (byte b : inet.getAddress().getAddress()) {
            text.append(String.format("%02x", b));
        }
        return text.append(':').append(inet.getPort()).toString();
    }

    static Message part(MessageExt m) {
        Message part = new Message(m.getTopic(), m.getBody());
        part.setFlag(m.getFlag());
        MessageAccessor.setProperties(part, m.getProperties());
        return part;
    }
}
