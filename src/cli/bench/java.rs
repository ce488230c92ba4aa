//! The Java store beside ours: the published `rocketmq-store` 5.5.0 in one JVM that is told what to measure, in the
//! same rounds.
//!
//! Its program (benches/java) travels in this binary; Maven builds it in the run's directory. The JVM lives as long as
//! the run, so that what it compiled stays compiled, and is warmed up before the first round.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    rc::Rc,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    Failure,
    fixture::Fixture,
    lab::{Head, Lab, Sample, Work},
    place,
    results::latencies,
};

const POM: &str = include_str!("../../../benches/java/pom.xml");
const PROGRAM: &str = include_str!("../../../benches/java/src/main/java/reput/StoreBench.java");
/// What its answers begin with; anything else on its output is a log line.
const MARK: &str = "reput-bench ";
/// No command takes longer.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Warming up: the store's paths are then compiled. In measurements' lengths, and at the most.
const WARM_UP: u32 = 10;
const LONGEST_WARM_UP: Duration = Duration::from_millis(2_500);
/// The JVM's own warm-up before each measurement, at the least.
const WARM_MS: u128 = 200;
/// The most that one command writes.
const MOST_BYTES: u64 = 900 << 20;
/// What the store needs to run on a Java that hides its insides.
const OPENED: [&str; 4] = [
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
];

/// Tells early when Java or Maven are not there.
pub fn check_tools() -> Result<(), Failure> {
    for (tool, question) in [("java", "-version"), ("mvn", "-v")] {
        let asked = Command::new(tool).arg(question).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !asked.is_ok_and(|status| status.success()) {
            return Err(format!(
                "--against-java needs Java 17 or later and Maven: {tool} does not run here. Install them (on Debian: \
                 apt-get install openjdk-17-jdk-headless maven), or leave --against-java out"
            )
            .into());
        }
    }
    Ok(())
}

/// Java's counterparts of the workloads that it has.
pub fn beside(works: &[Work], fixture: Option<&Rc<Fixture>>) -> Vec<Work> {
    let peer: Rc<RefCell<Option<Peer>>> = Rc::default();
    let heads = works.iter().flat_map(|work| &work.heads);
    heads.filter_map(|head| counterpart(head, fixture, &peer)).collect()
}

fn counterpart(head: &Head, fixture: Option<&Rc<Fixture>>, peer: &Rc<RefCell<Option<Peer>>>) -> Option<Work> {
    let task = Task::of(&head.id)?;
    if fixture.is_none() && !matches!(task, Task::Put { .. }) {
        return None;
    }
    let title = format!("{}: {}", head.group, head.title);
    let own = Head::new("java", format!("java/{}", head.id), title, head.unit);
    let (fixture, peer) = (fixture.cloned(), Rc::clone(peer));
    Some(Work::one(own, move |lab| {
        if peer.borrow().is_none() {
            let started = Peer::start(lab)?;
            *peer.borrow_mut() = Some(started);
        }
        let mut peer = peer.borrow_mut();
        let peer = peer.as_mut().ok_or("no JVM")?;
        task.run(lab, peer, fixture.as_deref())
    }))
}

/// What Java is asked to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    Put { sync: bool, body: usize, threads: usize, batch: usize },
    Reput { index: bool },
    Pull { threads: usize, batch: usize },
}

impl Task {
    /// The task of a cell of ours; `None` when Java's program has none.
    fn of(id: &str) -> Option<Self> {
        let parts: Vec<&str> = id.split('/').collect();
        let number = |text: &str, letter| text.strip_prefix(letter)?.parse().ok();
        Some(match parts[..] {
            [kind @ ("put" | "sync"), body, threads] => Self::Put {
                sync: kind == "sync",
                body: body.parse().ok()?,
                threads: number(threads, 't')?,
                batch: 1,
            },
            [kind @ ("put" | "sync"), body, threads, batch] => Self::Put {
                sync: kind == "sync",
                body: body.parse().ok()?,
                threads: number(threads, 't')?,
                batch: number(batch, 'b')?,
            },
            ["reput", what @ ("index" | "queues")] => Self::Reput { index: what == "index" },
            ["pull", threads, batch] => {
                Self::Pull { threads: number(threads, 't')?, batch: number(batch, 'b')? }
            }
            _ => return None,
        })
    }

    fn run(&self, lab: &Lab, peer: &mut Peer, fixture: Option<&Fixture>) -> Result<Sample, Failure> {
        let (ms, warm) = (lab.time.as_millis(), lab.warm.as_millis().max(WARM_MS));
        match self {
            Self::Put { sync, body, threads, batch } => {
                let dir = lab.place.fresh("java-put")?;
                let most = MOST_BYTES.min(lab.place.room()? / 4);
                let mode = if *sync { "sync" } else { "async" };
                let asked = format!(
                    "put\t{}\t{mode}\t{body}\t{threads}\t{batch}\t{warm}\t{ms}\t{most}",
                    dir.display()
                );
                let answer = peer.ask(lab, &asked);
                place::remove(&dir)?;
                Ok(answer?.sample())
            }
            Self::Reput { index } => {
                let (dir, segment, messages) = copied(lab, fixture)?;
                let what = if *index { "index" } else { "queues" };
                let answer = peer.ask(lab, &format!("reput\t{dir}\t{segment}\t{what}"))?;
                if answer.units != messages {
                    return Err(format!("Java found {} of {messages} messages", answer.units).into());
                }
                Ok(answer.sample())
            }
            Self::Pull { threads, batch } => {
                let (dir, segment, _) = copied(lab, fixture)?;
                Ok(peer
                    .ask(lab, &format!("pull\t{dir}\t{segment}\t{threads}\t{batch}\t{warm}\t{ms}"))?
                    .sample())
            }
        }
    }
}

/// A copy of the fixture's log for Java, made once: it opens what ours wrote. Its directory, segment size, messages.
fn copied(lab: &Lab, fixture: Option<&Fixture>) -> Result<(String, u64, u64), Failure> {
    let (from, messages) = fixture.ok_or("no store to read from")?.log_alone(lab)?;
    let dir = from.with_extension("java");
    if !dir.exists() {
        fs::create_dir_all(dir.join("commitlog"))?;
        for entry in fs::read_dir(from.join("commitlog"))? {
            let entry = entry?;
            fs::copy(entry.path(), dir.join("commitlog").join(entry.file_name()))?;
        }
    }
    let first = fs::read_dir(dir.join("commitlog"))?.next().ok_or("the fixture has no log")??;
    Ok((dir.display().to_string(), first.metadata()?.len(), messages))
}

/// Java's answer to a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    units: u64,
    seconds: f64,
    cpu_s: f64,
    /// Seconds until queues and index had followed.
    followed_s: Option<f64>,
    /// Times and how often each.
    nanos: Vec<(u64, u64)>,
}

impl Answer {
    fn sample(self) -> Sample {
        let mut times = latencies();
        for (nanos, count) in &self.nanos {
            times.saturating_record_n(*nanos, *count);
        }
        let mut sample = Sample::rate(self.units, self.seconds);
        sample.cpu = Some(Duration::from_secs_f64(self.cpu_s.max(0.0)));
        sample.followed = self.followed_s.map(|seconds| self.units as f64 / seconds.max(1e-9));
        sample.latency = Some(times).filter(|times| !times.is_empty());
        sample.timed_every = 1;
        sample
    }
}

/// A JVM that measures what it is told. It goes when this is dropped, and by itself when our end of its input closes.
#[derive(Debug)]
struct Peer {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already when it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(lab: &Lab) -> Result<Self, Failure> {
        lab.progress.measuring("building the Java store's program with Maven");
        let dir = lab.place.fresh("java")?;
        fs::create_dir_all(dir.join("src/main/java/reput"))?;
        fs::write(dir.join("pom.xml"), POM)?;
        fs::write(dir.join("src/main/java/reput/StoreBench.java"), PROGRAM)?;
        build(lab, &dir)?;
        let classpath = fs::read_to_string(dir.join("classpath"))?;
        let mut child = Command::new("java")
            .args([
                "-Xms1g",
                "-Xmx1g",
                "-XX:MaxDirectMemorySize=4g",
                "-XX:+UseParallelGC",
                "-XX:-UsePerfData",
            ])
            .args(OPENED)
            .arg(format!("-Duser.home={}", dir.display()))
            .args([
                "-cp",
                &format!("{}:{}", dir.join("target/classes").display(), classpath.trim()),
                "reput.StoreBench",
            ])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("java.log"))?)
            .spawn()
            .map_err(|e| format!("cannot start java: {e}"))?;
        let commands = child.stdin.take().ok_or("no way to talk to the JVM")?;
        let output = child.stdout.take().ok_or("no way to hear the JVM")?;
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let marked = BufReader::new(output).lines().map_while(Result::ok);
            for line in marked.filter_map(|line| line.strip_prefix(MARK).map(str::to_owned)) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut peer = Self { child, commands, lines };
        peer.answer(lab, &dir)?;
        lab.progress.measuring("warming up the Java store");
        let warm_up = (lab.time * WARM_UP).min(LONGEST_WARM_UP).as_millis();
        for (mode, batch) in [("async", 1), ("async", 32), ("sync", 1)] {
            let store = lab.place.fresh("java-warm")?;
            let warm =
                format!("put\t{}\t{mode}\t128\t2\t{batch}\t10\t{warm_up}\t{MOST_BYTES}", store.display());
            let answer = peer.ask(lab, &warm);
            place::remove(&store)?;
            answer?;
        }
        Ok(peer)
    }

    fn ask(&mut self, lab: &Lab, command: &str) -> Result<Answer, Failure> {
        lab.check()?;
        writeln!(self.commands, "{command}").map_err(|e| format!("the JVM is gone: {e}"))?;
        self.commands.flush()?;
        self.answer(lab, Path::new(""))
    }

    fn answer(&mut self, lab: &Lab, dir: &Path) -> Result<Answer, Failure> {
        let start = Instant::now();
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    let answer: Answer = serde_json::from_str(&line)?;
                    return match answer.error {
                        Some(error) => Err(format!("the Java store: {error}").into()),
                        None => Ok(answer),
                    };
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed() < LONGEST => lab.check()?,
                Err(RecvTimeoutError::Timeout) => return Err("the JVM does not answer".into()),
                Err(RecvTimeoutError::Disconnected) => {
                    let log = fs::read_to_string(dir.join("java.log")).unwrap_or_default();
                    let end: Vec<&str> = log.lines().rev().take(5).collect();
                    return Err(format!(
                        "the JVM ended: {}",
                        end.into_iter().rev().collect::<Vec<_>>().join("; ")
                    )
                    .into());
                }
            }
        }
    }
}

fn build(lab: &Lab, dir: &Path) -> Result<(), Failure> {
    let log = fs::File::create(dir.join("mvn.log"))?;
    let mut child = Command::new("mvn")
        .args(["-q", "-B", "-ntp", "-Dstyle.color=never", "compile", "dependency:build-classpath"])
        .arg(format!("-Dmdep.outputFile={}", dir.join("classpath").display()))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|e| format!("cannot start mvn: {e}"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(stop) = lab.check() {
            child.kill()?;
            child.wait()?;
            return Err(stop);
        }
        std::thread::sleep(LOOK);
    };
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(dir.join("mvn.log")).unwrap_or_default();
    let said: Vec<&str> = log.lines().filter(|line| line.starts_with("[ERROR] ")).take(4).collect();
    Err(format!("Maven could not build the Java store's program: {}", said.join("; ")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_java_has_are_found_by_their_names() {
        let put = |sync, body, threads, batch| Some(Task::Put { sync, body, threads, batch });
        assert_eq!(Task::of("put/128/t1"), put(false, 128, 1, 1));
        assert_eq!(Task::of("sync/1024/t64"), put(true, 1024, 64, 1));
        assert_eq!(Task::of("put/128/t1/b32"), put(false, 128, 1, 32));
        assert_eq!(Task::of("reput/queues"), Some(Task::Reput { index: false }));
        assert_eq!(Task::of("pull/t4/b32"), Some(Task::Pull { threads: 4, batch: 32 }));
        for none in ["put/128/t1/r1000", "sync/1024/t4/w64", "pull/t1/b32/tag", "memory/copy/235", "put/x/t1"]
        {
            assert_eq!(Task::of(none), None, "{none}");
        }
    }

    #[test]
    fn an_answer_becomes_a_sample() {
        let answer: Answer = serde_json::from_str(
            r#"{"units":10,"seconds":2.0,"cpu_s":1.0,"followed_s":4.0,"nanos":[[1000,9],[5000,1]]}"#,
        )
        .unwrap();
        let sample = answer.sample();
        assert!((sample.value - 5.0).abs() < 1e-9 && (sample.followed.unwrap() - 2.5).abs() < 1e-9);
        assert_eq!(sample.latency.unwrap().len(), 10);
        let failed: Answer = serde_json::from_str(r#"{"error":"no room"}"#).unwrap();
        assert_eq!(failed.error.as_deref(), Some("no room"));
    }
}
