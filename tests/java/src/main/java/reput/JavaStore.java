package reput;

import java.io.File;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** The published store over a directory, with the keys of a properties file. */
final class JavaStore {
    private JavaStore() {
    }

    static DefaultMessageStore make(Path root, Path conf) throws IOException {
        Properties keys = new Properties();
        if (conf != null && Files.exists(conf)) {
            try (Reader in = Files.newBufferedReader(conf)) {
                keys.load(in);
            }
        }
        MessageStoreConfig config = new MessageStoreConfig();
        config.setHaListenPort(0);
        // The directories of these tests have many small files; the limit of ten is meant for files of a gigabyte.
        config.setCommitLogRecoverMaxNum(1_000_000);
        MixAll.properties2Object(keys, config);
        config.setStorePathRootDir(root.toString());
        config.setStorePathCommitLog(root.resolve("commitlog").toString());
        BrokerConfig broker = new BrokerConfig();
        broker.setBrokerName("broker-a");
        MixAll.properties2Object(keys, broker);
        ConcurrentMap<String, TopicConfig> topics = new ConcurrentHashMap<>();
        for (String topic : batchTopics(root, keys)) {
            TopicConfig declared = new TopicConfig(topic, 8, 8);
            Map<String, String> attributes = new HashMap<>();
            attributes.put("queue.type", "BatchCQ");
            declared.setAttributes(attributes);
            topics.put(topic, declared);
        }
        return new DefaultMessageStore(config, new BrokerStatsManager("reput", true),
            (topic, queue, offset, tags, time, bits, properties) -> { }, broker, topics);
    }

    /** Java refuses a directory whose batch queues are not declared, so declare what is there and what will be. */
    private static String[] batchTopics(Path root, Properties keys) {
        String[] there = new File(root.toFile(), "batchconsumequeue").list();
        String planned = keys.getProperty("testBatchTopics", "");
        String[] also = planned.isEmpty() ? new String[0] : planned.split(",");
        String[] all = new String[also.length + (there == null ? 0 : there.length)];
        System.arraycopy(also, 0, all, 0, also.length);
        if (there != null) {
            System.arraycopy(there, 0, all, also.length, there.length);
        }
        return all;
    }

    static DefaultMessageStore open(Path root, Path conf) throws Exception {
        DefaultMessageStore store = make(root, conf);
        if (!store.load()) {
            throw new IllegalStateException("Java refuses to load " + root);
        }
        store.start();
        awaitDispatch(store);
        return store;
    }

    static void awaitDispatch(DefaultMessageStore store) throws InterruptedException {
        for (int i = 0; i < 1500 && store.dispatchBehindBytes() > 0; i++) {
            Thread.sleep(20);
        }
        if (store.dispatchBehindBytes() > 0) {
            throw new IllegalStateException("dispatch stands still, " + store.dispatchBehindBytes() + " bytes behind");
        }
        Thread.sleep(100);
    }
}
