package reput;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.CRC32;

/**
 * What a writer was told of one message, a JSON line each. The line is written only after the store acknowledged the
 * message, so whatever has a line must be found again, whoever wrote and whoever opens the directory.
 */
public final class Ack {
    public String topic;
    public int queueId;
    public long queueOffset;
    public long phyOffset;
    public int size;
    public long storeTimestamp;
    public long bornTimestamp;
    public String bornHost;
    public String storeHost;
    public int sysFlag;
    public int flag;
    public int reconsumeTimes;
    public long preparedTransactionOffset;
    public int bodyLength;
    public long bodyCrc;
    public String tags;
    public String keys;
    public String uniqKey;
    public String user;
    public int delayLevel;
    public String lmq;
    public int innerNum;

    /** Whether the message has an entry in its queue: prepared and rolled back ones have none. */
    public boolean queued() {
        int transaction = sysFlag >> 2 & 3;
        return transaction == 0 || transaction == 2;
    }

    /** Whether its keys are in the index: all but rolled back ones. */
    public boolean indexed() {
        return (sysFlag >> 2 & 3) != 3;
    }

    static long crc(byte[] body) {
        CRC32 crc = new CRC32();
        crc.update(body);
        return crc.getValue();
    }

    String line() {
        return JSON.toJSONString(this) + "\n";
    }

    static List<Ack> read(Path file) throws IOException {
        List<Ack> acks = new ArrayList<>();
        try (BufferedReader in = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                // A writer that was killed may have left half a line; the message it was about counts as not acknowledged.
                if (!line.endsWith("}")) {
                    continue;
                }
                acks.add(JSONObject.parseObject(line, Ack.class));
            }
        }
        return acks;
    }
}
