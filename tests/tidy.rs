//! The house rules that can be measured on the tree: who may import whom, how long things may get, where `unsafe`
//! may stand, and which names are not used. Each failure lists every offender with its place.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Lines of code that a file may have, without comments, blank lines and its unit tests.
const FILE_LINES: usize = 600;
/// Lines that a function may have.
const FUNCTION_LINES: usize = 90;
/// Names that one `use` statement may bring in.
const USE_NAMES: usize = 26;
/// The only files that may hold `unsafe` blocks.
const UNSAFE_FILES: [&str; 6] = [
    "src/segment/region.rs",
    "src/vfs/listing.rs",
    "src/vfs/os.rs",
    "src/vfs/overlay.rs",
    "src/vfs/probe.rs",
    "src/vfs/sigbus.rs",
];
/// Words that say nothing about what a module or a type does.
const EMPTY_FILE_NAMES: [&str; 6] = ["utils", "util", "common", "manager", "helper", "helpers"];
const EMPTY_TYPE_ENDS: [&str; 6] = ["Impl", "Base", "Manager", "Util", "Handle", "Context"];

/// The modules from the ground up. Each may import those before it and none behind it.
const ORDER: &[&str] = &[
    "types",
    "error",
    "vfs",
    "clock",
    "config",
    "format",
    "sql92",
    "segment",
    "commit_log",
    "consume_queue",
    "index",
    "message",
    "filter",
    "dispatch",
    "deleted",
    "stats",
    "reput",
    "retention",
    "recovery",
    "store",
    "sim",
    "dump",
    "verify",
    "remoting",
    "namesrv",
    "broker",
    "cli",
];
/// What the order would allow and the house plan does not: the three kinds of files are joined by others, the format
/// is bytes and values alone, and store and wire meet in the broker only.
const APART: &[(&str, &[&str])] = &[
    ("format", &["vfs", "clock", "config"]),
    ("consume_queue", &["commit_log"]),
    ("index", &["commit_log", "consume_queue"]),
    ("message", &["commit_log", "consume_queue", "index"]),
    (
        "remoting",
        &[
            "segment",
            "commit_log",
            "consume_queue",
            "index",
            "message",
            "reput",
            "recovery",
            "store",
            "config",
        ],
    ),
    (
        "namesrv",
        &["segment", "commit_log", "consume_queue", "index", "message", "reput", "recovery", "store"],
    ),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text before the unit tests, which by custom stand last; those in a `tests.rs` or below `tests/` are not read at all.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&self.text)
    }

    /// The code's lines with their numbers, comments and blank lines left out.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code()
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line))
            .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
    }

    /// The first part of the module path: `broker` for `src/broker/send.rs`, `store` for `src/store.rs`.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

fn sources(below: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join(below), &mut paths);
    let sources: Vec<Source> = paths
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), path))
        .filter(|(name, _)| {
            name.ends_with(".rs") && !name.ends_with("/tests.rs") && !name.contains("/tests/")
        })
        .map(|(name, path)| Source { path: name, text: fs::read_to_string(&path).unwrap() })
        .collect();
    assert!(!sources.is_empty(), "no source below {below}");
    sources
}

fn report(rule: &str, offenders: &[String]) {
    let mut list = String::new();
    for line in offenders {
        writeln!(list, "  {line}").unwrap();
    }
    assert!(offenders.is_empty(), "{rule}:\n{list}");
}

/// Modules that a line names as `crate::name` or within `use crate::{name::…, name}`.
fn imported_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.push(first_word(rest)),
        }
    }
    found
}

/// The first words of the top level parts of `a::{b, c}, d}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut part) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut part)),
            _ if depth == 0 => part.push(c),
            _ => {}
        }
    }
    heads.push(part);
    heads.iter().map(|part| first_word(part.trim_start())).filter(|head| !head.is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn without_comments(code: &str) -> String {
    code.lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Which module a name of the crate's root comes from, as lib.rs re-exports it.
fn home_of_exports() -> Vec<(String, String)> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut homes = Vec::new();
    for statement in lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let module = first_word(statement);
        let names = statement.split_once("::").map_or("", |(_, names)| names);
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
            homes.push((name.to_owned(), module.clone()));
        }
    }
    homes
}

#[test]
fn modules_import_downwards_only() {
    let place = |module: &str| ORDER.iter().position(|name| *name == module);
    let homes = home_of_exports();
    let mut offenders = Vec::new();
    for source in sources("src") {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(own) = place(module) else {
            offenders.push(format!("{}: the module {module} has no place in the order", source.path));
            continue;
        };
        let apart = APART.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, apart)| *apart);
        for name in imported_modules(&without_comments(source.code())) {
            let import = homes.iter().find(|(export, _)| *export == name).map_or(&name, |(_, home)| home);
            let vocabulary = matches!(import.as_str(), "types" | "error");
            let Some(other) = place(import).filter(|_| !vocabulary) else { continue };
            if other > own || apart.contains(&import.as_str()) {
                offenders.push(format!("{}: {module} imports {import}", source.path));
            }
        }
    }
    offenders.dedup();
    report("imports against the order of the house", &offenders);
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let lines = source.code_lines().count();
        if lines > FILE_LINES {
            offenders.push(format!("{}: {lines} lines of code", source.path));
        }
    }
    report(&format!("files over {FILE_LINES} lines of code"), &offenders);
}

#[test]
fn functions_stay_short_enough_to_read() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let mut open: Option<(usize, usize, String)> = None;
        for (i, line) in source.code().lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if let Some((start, depth, name)) = &open {
                if indent == *depth && line.trim_end() == format!("{}}}", " ".repeat(*depth)) {
                    if i - start > FUNCTION_LINES {
                        offenders.push(format!("{}:{}: {name}, {} lines", source.path, start + 1, i - start));
                    }
                    open = None;
                }
            } else if let Some(name) = function_name(line)
                && !line.trim_end().ends_with(['}', ';'])
            {
                open = Some((i, indent, name));
            }
        }
    }
    report(&format!("functions over {FUNCTION_LINES} lines"), &offenders);
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.strip_prefix("fn ").map(first_word)
}

#[test]
fn use_lists_stay_short() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let code = without_comments(source.code());
        for (at, _) in code.match_indices("\nuse ") {
            let statement = code[at + 1..].split(';').next().unwrap_or("");
            let parts = statement.split([',', '{', '}']).map(str::trim);
            let names = parts.filter(|part| !part.is_empty() && !part.ends_with("::")).count();
            if names > USE_NAMES && !source.path.ends_with("lib.rs") {
                offenders.push(format!(
                    "{}: {names} names in `{:.40}…`",
                    source.path,
                    statement.replace('\n', " ")
                ));
            }
        }
    }
    report(&format!("use statements over {USE_NAMES} names"), &offenders);
}

#[test]
fn unsafe_stands_only_where_it_is_fenced() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code_lines() {
            let unsafe_word =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            let allows = line.contains("allow(unsafe_code)");
            if (unsafe_word || allows) && !UNSAFE_FILES.contains(&source.path.as_str()) {
                offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report("unsafe outside its fence", &offenders);
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let offenders: Vec<String> = sources("src")
        .iter()
        .filter(|source| source.path != "src/main.rs" && !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    report("files without a first line that says what they own", &offenders);
}

#[test]
fn names_say_what_a_thing_does() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let stem = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        if EMPTY_FILE_NAMES.contains(&stem) {
            offenders.push(source.path.clone());
        }
        for (number, line) in source.code_lines() {
            let mut rest = line.trim_start();
            for word in ["pub(crate) ", "pub(super) ", "pub "] {
                rest = rest.strip_prefix(word).unwrap_or(rest);
            }
            for kind in ["struct ", "enum ", "trait ", "type "] {
                let Some(name) = rest.strip_prefix(kind).map(first_word) else { continue };
                if EMPTY_TYPE_ENDS.iter().any(|end| name.ends_with(end)) {
                    offenders.push(format!("{}:{number}: {name}", source.path));
                }
            }
        }
    }
    report("names that say nothing", &offenders);
}

#[test]
fn files_and_processes_are_reached_through_the_file_system_seam() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let free = matches!(source.module(), "vfs" | "cli" | "main" | "broker");
        for (number, line) in source.code_lines() {
            if !free && ["std::fs", "libc::", "memmap2"].iter().any(|word| line.contains(word)) {
                offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report("file access past the seam", &offenders);
}

#[test]
fn the_import_reader_sees_every_form() {
    let code =
        "use crate::{a::{x, y}, b, c::z};\nlet v = crate::d::f();\nuse mycrate::e;\nmacro!($crate::f::g);";
    assert_eq!(imported_modules(code), ["a", "b", "c", "d"]);
}
