package reput;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.AppendMessageResult;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.PutMessageStatus;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * One test a directory below the system property reput.cases: `store` as our writer left it, `acks.jsonl`, `store.conf`
 * and `plan`. Java opens it where it lies, everything acknowledged must be there, then Java appends to it and closes
 * it, so that our side can open what both have written.
 */
class OurStoresOpenInJavaTest {
    @TestFactory
    Stream<DynamicTest> everyDirectoryOfOurs() throws Exception {
        Path cases = Path.of(System.getProperty("reput.cases"));
        List<Path> all;
        try (Stream<Path> list = Files.list(cases)) {
            all = list.filter(Files::isDirectory).sorted().toList();
        }
        assertTrue(!all.isEmpty(), "no case below " + cases);
        return all.stream().map(dir -> DynamicTest.dynamicTest(dir.getFileName().toString(), () -> open(dir)));
    }

    private static void open(Path dir) throws Exception {
        Path root = dir.resolve("store");
        List<Ack> acks = Ack.read(dir.resolve("acks.jsonl"));
        assertTrue(acks.size() > 100, "only " + acks.size() + " messages were acknowledged");
        boolean killed = Files.exists(root.resolve("abort"));
        assertEquals(dir.getFileName().toString().endsWith("-killed"), killed, "abort file");
        DefaultMessageStore store = JavaStore.make(root, dir.resolve("store.conf"));
        long from = Check.indexedFrom(root, store.getMessageStoreConfig().getMappedFileSizeCommitLog(), killed);
        assertTrue(store.load(), "Java refuses to load it");
        store.start();
        try {
            JavaStore.awaitDispatch(store);
            Check check = new Check(store, acks);
            check.walkLog();
            check.checkAcks();
            check.walkQueues();
            check.checkQueries(from);
            assertTrue(check.problems().isEmpty(), () -> String.join("\n", check.problems()));
            if (!killed) {
                assertEquals(acks.size(), check.records(), "records in the log of a clean stop");
            }
            System.out.printf("%s: %d acknowledged, %d records, %d entries, %d queries%n", dir.getFileName(), acks.size(),
                check.records(), check.entries, check.queries);
            append(store, Files.readString(dir.resolve("plan")).trim().split("\\s+"), dir);
        } finally {
            store.shutdown();
        }
    }

    /** Java goes on writing where we stopped: offsets continue, and the new messages are found. */
    private static void append(DefaultMessageStore store, String[] words, Path dir) throws Exception {
        Plan plan = new Plan(words[0], Integer.parseInt(words[1]), Integer.parseInt(words[2]), Integer.parseInt(words[3]));
        try (FileOutputStream out = new FileOutputStream(dir.resolve("acks.jsonl").toFile(), true)) {
            // Half a line that a kill left must not swallow the first of these.
            out.write('\n');
            for (long n = 50_000_000; n < 50_000_050; n++) {
                MessageExtBrokerInner m = plan.message(n);
                PutMessageResult result = store.putMessage(m);
                assertEquals(PutMessageStatus.PUT_OK, result.getPutMessageStatus());
                AppendMessageResult place = result.getAppendMessageResult();
                Ack a = Plan.ack(m);
                a.phyOffset = place.getWroteOffset();
                a.size = place.getWroteBytes();
                a.queueOffset = place.getLogicsOffset();
                a.storeTimestamp = place.getStoreTimestamp();
                out.write(a.line().getBytes(StandardCharsets.UTF_8));
            }
        }
        JavaStore.awaitDispatch(store);
    }
}
