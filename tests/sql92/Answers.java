import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;
import org.apache.rocketmq.filter.util.BitsArray;
import org.apache.rocketmq.filter.util.BloomFilter;

/**
 * What RocketMQ's own rocketmq-filter answers, as tables that our tests read.
 *
 *   java -cp rocketmq-filter-5.5.0.jar:rocketmq-common-5.5.0.jar:guava.jar:slf4j... Answers.java questions.txt answers.tsv
 *
 * A question is a line: `P name=value;...` one set of properties, `E expression`, `N text` something to be read as a
 * number, `B rate count key` a key of a Bloom filter. The answers repeat it after a tab: for an expression one letter a
 * set (T true, F false, N null, E failed while evaluating) or `!` when it does not compile; for a number its double's
 * bits, its int and its long; for a Bloom filter its k, its m, the key's bits and the bitmap with only that key in it.
 * Tab, line feed, carriage return, form feed and backslash are written \t \n \r \f \\, other characters as they are.
 */
public class Answers {
    public static void main(String[] args) throws Exception {
        List<Map<String, String>> sets = new ArrayList<>();
        StringBuilder out = new StringBuilder();
        for (String line : Files.readAllLines(Path.of(args[0]), StandardCharsets.UTF_8)) {
            if (line.length() < 1 || line.startsWith("#")) {
                continue;
            }
            String rest = line.length() < 2 ? "" : plain(line.substring(2));
            out.append(line);
            switch (line.charAt(0)) {
                case 'P':
                    Map<String, String> set = new HashMap<>();
                    for (String pair : rest.split(";")) {
                        int at = pair.indexOf('=');
                        if (at > 0) {
                            set.put(pair.substring(0, at), pair.substring(at + 1));
                        }
                    }
                    sets.add(set);
                    break;
                case 'E':
                    out.append('\t').append(answers(rest, sets));
                    break;
                case 'N':
                    out.append('\t').append(number(() -> Long.toHexString(Double.doubleToLongBits(Double.valueOf(rest)))));
                    out.append('\t').append(number(() -> Integer.valueOf(rest).toString()));
                    out.append('\t').append(number(() -> Long.valueOf(rest).toString()));
                    break;
                default:
                    out.append('\t').append(bloom(rest.split(" ", 3)));
            }
            out.append('\n');
        }
        Files.write(Path.of(args[1]), out.toString().getBytes(StandardCharsets.UTF_8));
    }

    private static String answers(String expression, List<Map<String, String>> sets) {
        Expression compiled;
        try {
            compiled = FilterFactory.INSTANCE.get("SQL92").compile(expression);
        } catch (Throwable e) {
            return "!";
        }
        StringBuilder letters = new StringBuilder();
        for (Map<String, String> set : sets) {
            EvaluationContext context = new EvaluationContext() {
                @Override public Object get(String name) {
                    return set.get(name);
                }

                @Override public Map<String, Object> keyValues() {
                    return new HashMap<>(set);
                }
            };
            try {
                Object answer = compiled.evaluate(context);
                letters.append(answer == null ? 'N' : (Boolean) answer ? 'T' : 'F');
            } catch (Throwable e) {
                letters.append('E');
            }
        }
        return letters.toString();
    }

    private interface Reader {
        String read();
    }

    private static String number(Reader reader) {
        try {
            return reader.read();
        } catch (NumberFormatException e) {
            return "-";
        }
    }

    private static String bloom(String[] question) {
        BloomFilter filter = BloomFilter.createByFn(Integer.parseInt(question[0]), Integer.parseInt(question[1]));
        BitsArray bits = BitsArray.create(filter.getM());
        filter.hashTo(question[2], bits);
        StringBuilder text = new StringBuilder(filter.getK() + "\t" + filter.getM() + "\t");
        for (int position : filter.calcBitPositions(question[2])) {
            text.append(position).append(' ');
        }
        text.append('\t');
        for (byte b : bits.bytes()) {
            text.append(String.format("%02x", b));
        }
        return text.toString();
    }

    private static String plain(String text) {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '\\') {
                c = text.charAt(++i);
                c = c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 'f' ? '\f' : c;
            }
            out.append(c);
        }
        return out.toString();
    }
}
