//! The tables that RocketMQ's own filter module answered (`tests/sql92`), and arbitrary text.

use proptest::prelude::*;

use super::{Expression, MAX_DEPTH, MAX_LENGTH, number};

const ANSWERS: &str = include_str!("../../tests/sql92/answers.tsv");

fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next().unwrap() {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'f' => '\x0c',
                other => other,
            },
            c => c,
        });
    }
    out
}

/// The answers of a kind: the question and the columns behind it.
fn answers(kind: char) -> impl Iterator<Item = (String, Vec<&'static str>)> {
    ANSWERS.lines().filter(move |line| line.starts_with(kind)).map(|line| {
        let mut columns = line.split('\t');
        let question = columns.next().unwrap();
        (plain(question.get(2..).unwrap_or("")), columns.collect())
    })
}

fn sets() -> Vec<Vec<(String, String)>> {
    let pairs = |set: String| {
        let pairs = set.split(';').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    answers('P').map(|(set, _)| pairs(set)).collect()
}

#[test]
fn expressions_answer_as_rocketmq_answers_them() {
    let sets = sets();
    assert_eq!(sets.len(), 9);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (text, expected) in answers('E') {
        let got = match Expression::parse(&text) {
            Err(_) => "!".to_owned(),
            Ok(expression) => sets
                .iter()
                .map(|set| {
                    let get =
                        |name: &str| set.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
                    match expression.evaluate(get) {
                        Ok(Some(true)) => 'T',
                        Ok(Some(false)) => 'F',
                        Ok(None) => 'N',
                        Err(_) => 'E',
                    }
                })
                .collect(),
        };
        count += got.len();
        if got != expected[0] {
            wrong.push(format!("{text:?}: {got}, RocketMQ says {}", expected[0]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 2_000, "{count} answers");
}

#[test]
fn numbers_are_read_as_java_reads_them() {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut wrong = Vec::new();
    for (text, expected) in answers('N') {
        let got = [
            shown(number::double(&text).map(|value| format!("{:x}", value.to_bits()))),
            shown(number::int(&text).map(|value| value.to_string())),
            shown(number::long(&text).map(|value| value.to_string())),
        ];
        if got != expected[..] {
            wrong.push(format!("{text:?}: {got:?}, Java says {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_expression_ends_at_its_bounds_and_needs_no_deep_stack_within_them() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    let run = move || {
        assert!(Expression::parse(&nested(MAX_DEPTH - 1)).unwrap().matches(|_| Some("1")));
        assert!(Expression::parse(&nested(MAX_DEPTH)).unwrap_err().to_string().contains("1024 deep"));
        assert!(Expression::parse(&"(".repeat(MAX_LENGTH)).is_err());
        assert!(Expression::parse(&"NOT ".repeat(MAX_LENGTH / 4)).is_err());
        assert!(Expression::parse(&"-".repeat(MAX_LENGTH + 1)).unwrap_err().to_string().contains("65536"));
        let wide = vec!["a = 1"; MAX_LENGTH / 10].join(" OR ");
        assert!(Expression::parse(&wide).unwrap().matches(|_| Some("1")));
        // RocketMQ evaluates the value of every BETWEEN twice: nested ones would take for ever.
        let mut between = "a".to_owned();
        for _ in 0..200 {
            between = format!("-({between} BETWEEN 1 AND 2)");
        }
        assert_eq!(
            Expression::parse(&format!("{between} IS NULL")).unwrap().evaluate(|_| Some("1")),
            Ok(Some(true))
        );
    };
    std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_parse_error_says_where_and_why() {
    for (text, at, why) in [
        ("a > ", 4, "missing before this"),
        ("a > 'x'", 7, "only numbers and properties"),
        ("a = NULL", 8, "IS NULL"),
        ("a # b", 1, "no word"),
        ("a BETWEEN 2 AND 1", 17, "above the second"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert!(error.why.contains(why) && error.at.abs_diff(at) <= 1, "{text}: {error}");
    }
}

const WORDS: [&str; 40] = [
    "a",
    "b",
    "s",
    "x",
    "=",
    "<>",
    "<",
    ">",
    "<=",
    ">=",
    "(",
    ")",
    ",",
    "+",
    "-",
    "NOT",
    "AND",
    "OR",
    "IN",
    "IS",
    "NULL",
    "TRUE",
    "FALSE",
    "BETWEEN",
    "CONTAINS",
    "STARTSWITH",
    "ENDSWITH",
    "1",
    "2.5",
    "0",
    "'a'",
    "''",
    "'1'",
    "9999999999",
    "--",
    "/*",
    "*/",
    "\n",
    "'",
    "#",
];

fn ask(text: &str) {
    if let Ok(expression) = Expression::parse(text) {
        assert_eq!(expression.as_str(), text);
        let first = expression.evaluate(|name| (name != "x").then_some("1"));
        assert_eq!(expression.matches(|name| (name != "x").then_some("1")), first == Ok(Some(true)));
        let _ = expression.evaluate(|_| None);
        let _ = expression.evaluate(|_| Some("abc"));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,80}") {
        ask(&text);
    }

    #[test]
    fn no_order_of_words_makes_it_panic(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..24)) {
        ask(&words.join(" "));
        ask(&words.concat());
    }

    #[test]
    fn what_is_true_is_false_below_a_not(a in -20i64..20, b in -20i64..20, low in -20i64..0, high in 0i64..20) {
        let (a, b) = (a.to_string(), b.to_string());
        for text in [
            format!("a > b AND a > {high}"),
            format!("a BETWEEN {low} AND {high} OR b < {low}"),
            format!("a NOT BETWEEN {low} AND {high}"),
            "a = b".to_owned(),
        ] {
            let yes = Expression::parse(&text).unwrap();
            let no = Expression::parse(&format!("NOT ({text})")).unwrap();
            let get = |name: &str| Some(if name == "a" { a.as_str() } else { b.as_str() });
            prop_assert_eq!(yes.evaluate(get).unwrap().map(|truth| !truth), no.evaluate(get).unwrap());
        }
    }
}
