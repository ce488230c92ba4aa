//! Drives a store through the steps of a workload, keeps the model beside it, and checks images of crashes.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    Budget, Tally, Violation,
    check::{self, broken, panic_text},
    model::{Model, Put},
    plan::{Order, Setup, Step, Wait},
    workload::{Breakage, Workload},
};
use crate::{
    clock::{Clock, ManualClock},
    error::Error,
    format::properties::PropertiesBuf,
    message::{Message, PutStatus},
    sim::{
        crash::{Crash, Kept, Outcome},
        disk::SimDisk,
        faults::{Call, Failure, Fault},
        rng::Rng,
    },
    store::{Steps, Store},
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

/// The first crash, and three within recovery.
const DEPTH: usize = 4;
/// Bytes of the disk that the model of a full one has; nothing fills it but faults.
const START: i64 = 1_700_000_000_000;

/// A place in a workload, none for its first opening, and how many calls of each kind are made there.
pub(super) type CallsAt = (Option<usize>, BTreeMap<Call, u64>);

/// What every crash point sees: the model as it is at that moment.
type Shared = Arc<Mutex<Model>>;

/// One moment at which the machine stopped, and what must hold after it.
struct Point {
    crash: Crash,
    model: Model,
    now: StoreTimestamp,
}

/// One run of a workload.
pub(super) struct Run<'r> {
    setup: &'r Setup,
    budget: Budget,
    clock: Arc<ManualClock>,
    disk: SimDisk,
    model: Shared,
    /// Crash points of the step that is being made.
    points: Arc<Mutex<Vec<Point>>>,
    /// The open store; none between two lives.
    open: Option<(Store, Steps)>,
    rng: Rng,
    /// A log sync failed in this life: nothing may be acknowledged any more.
    poisoned: bool,
    /// The removal of a segment failed in this life: it may be gone or come back.
    half_removed: bool,
    /// Calls of this disk fail, or will.
    broken: bool,
    /// Calls that had failed on this disk when it was last mended.
    mended: u64,
    pub(super) tally: Tally,
    /// Calls that failed on purpose, by kind.
    pub(super) failed: BTreeMap<Call, u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'r> Run<'r> {
    pub(super) fn new(setup: &'r Setup, seed: u64, budget: Budget) -> Self {
        let clock = Arc::new(ManualClock::new(StoreTimestamp(START)));
        let disk = SimDisk::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let mut run = Self {
            setup,
            budget,
            clock,
            disk,
            model: Arc::new(Mutex::new(Model::new(setup.queue_count()))),
            points: Arc::default(),
            open: None,
            rng: Rng::of(seed, 3),
            poisoned: false,
            half_removed: false,
            broken: false,
            mended: 0,
            tally: Tally::default(),
            failed: BTreeMap::new(),
        };
        run.take_disk(run.disk.clone());
        run
    }

    fn take_disk(&mut self, disk: SimDisk) {
        if self.setup.copy_on_write {
            disk.set_copy_on_write();
        }
        self.disk = disk;
        self.watch();
    }

    fn watch(&self) {
        let (model, points, clock) =
            (Arc::clone(&self.model), Arc::clone(&self.points), Arc::clone(&self.clock));
        if self.budget.images == 0 {
            return;
        }
        self.disk.watch_stores(self.setup.store_stride);
        self.disk.watch(self.setup.write_stride, move |moment| {
            let model = locked(&model).clone();
            locked(&points).push(Point { crash: moment.crash(), model, now: clock.now() });
        });
    }

    /// Makes all steps, and checks the images of each. The first violation ends the run.
    pub(super) fn workload(&mut self, workload: &Workload) -> Result<(), (usize, Violation)> {
        if let Some(Breakage::Open(fault)) = workload.breakage {
            self.broken(fault);
        }
        self.start().map_err(|violation| (0, violation))?;
        let mut waiting = match workload.breakage {
            Some(Breakage::Step(at, fault)) => Some((at, fault)),
            _ => None,
        };
        for (at, (number, step)) in workload.steps.iter().enumerate() {
            if let Some((_, fault)) = waiting.take_if(|(first, _)| *first <= *number) {
                self.broken(fault);
            }
            self.one(step).map_err(|violation| (at, violation))?;
            if self.budget.images > 0 && self.tally.images >= self.budget.images {
                break;
            }
        }
        match workload.breakage {
            Some(Breakage::Recovery(left, fault)) => {
                let crash = self.last_crash();
                let outcome = crash.adversarial().get(left).copied();
                let failing = outcome.map_or(Ok(()), |outcome| self.failing_recovery(&crash, outcome, fault));
                failing.map_err(|violation| (workload.len().saturating_sub(1), violation))
            }
            _ => Ok(()),
        }
    }

    /// Makes all steps while nothing fails. Says how many calls of each kind the first opening and then each step makes.
    pub(super) fn count(&mut self, steps: &[(usize, Step)]) -> Result<Vec<CallsAt>, (usize, Violation)> {
        self.start().map_err(|violation| (0, violation))?;
        let (mut counted, mut before) = (Vec::new(), BTreeMap::new());
        let mut note = |place: Option<usize>, now: BTreeMap<Call, u64>| {
            let more = now.iter().map(|(call, count)| (*call, count - before.get(call).unwrap_or(&0)));
            counted.push((place, more.collect()));
            before = now;
        };
        note(None, self.disk.calls());
        for (at, (number, step)) in steps.iter().enumerate() {
            self.one(step).map_err(|violation| (at, violation))?;
            note(Some(*number), self.disk.calls());
        }
        Ok(counted)
    }

    fn one(&mut self, step: &Step) -> Result<(), Violation> {
        let made = catch_unwind(AssertUnwindSafe(|| self.make(step)));
        made.unwrap_or_else(|panic| Err(broken(7, format!("{step} panics: {}", panic_text(&*panic)))))?;
        self.learn();
        self.disk.point();
        let points = std::mem::take(&mut *locked(&self.points));
        for point in points {
            self.images(&point)?;
        }
        match self.disk.strays().first() {
            Some(stray) => Err(broken(7, format!("a store past the seam: {stray}"))),
            None => Ok(()),
        }
    }

    /// Opens the store on the disk as it is.
    fn start(&mut self) -> Result<(), Violation> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let failed = self.disk.failed_calls();
        (self.poisoned, self.half_removed) = (false, false);
        self.open = Some(match check::attempt(&self.disk, self.setup, &clock)? {
            Ok(opened) => opened,
            // An open that fails on a failing disk loses nothing: the next one succeeds.
            Err(_) if self.disk.failed_calls() > failed => {
                self.mend();
                check::open(&self.disk, self.setup, &clock)?
            }
            Err(error) => return Err(broken(7, format!("the store does not open: {error}"))),
        });
        Ok(())
    }

    /// Takes note of what the store says of itself, and of what consumers see: one that waits sees an entry as soon as
    /// it is there, and in synchronous mode nothing may take it away again.
    fn learn(&self) {
        let Some((store, _)) = &self.open else { return };
        let status = store.status();
        let mut model = locked(&self.model);
        for (n, seen) in model.seen.iter_mut().enumerate().filter(|_| self.setup.sync) {
            let (topic, id) = self.setup.queue(n);
            *seen = store.find_queue(&topic, id).map_or(0, |queue| store.max_offset(queue).0).max(*seen);
        }
        model.durable_to(status.durable_offset);
        model.high = status.min_offset.max(PhysicalOffset::ZERO);
        if !self.half_removed {
            model.low = model.high;
        }
    }

    fn make(&mut self, step: &Step) -> Result<(), Violation> {
        match step {
            Step::Put { orders, wait } => return self.put(orders, *wait),
            Step::Clock(ms) => self.move_clock(*ms),
            Step::Break(fault) => self.broken(*fault),
            Step::Crash(seed) => return self.power_cut(*seed),
            Step::Kill => return self.kill(),
            Step::Close => return self.close(),
            _ => {}
        }
        let Some((store, steps)) = &mut self.open else { return Ok(()) };
        let outcome = match step {
            Step::Sync => store.sync().map(|()| {
                let mut model = locked(&self.model);
                model.durable = model.log.len();
            }),
            Step::Flush => steps.flush(),
            Step::Reput => steps.reput().map(drop),
            Step::Upkeep => steps.upkeep(),
            Step::Prepare => steps.prepare(),
            Step::Retention => {
                store.delete_expired();
                self.clock.advance(Duration::from_secs(7_200));
                locked(&self.model).high = PhysicalOffset(i64::MAX);
                let deleted = steps.retention().map(drop);
                self.half_removed |= deleted.is_err();
                deleted
            }
            _ => Ok(()),
        };
        self.judge(outcome.err())
    }

    /// An error is allowed when something was broken on purpose.
    fn judge(&mut self, error: Option<Error>) -> Result<(), Violation> {
        let Some(error) = error else { return Ok(()) };
        // A queue file that cannot be synced is not the log: its entries stand there again.
        self.poisoned |= self.open.as_ref().is_some_and(|(store, _)| store.status().poisoned.is_some());
        if self.has_failed() {
            return Ok(());
        }
        Err(broken(7, format!("an error, and nothing is broken: {error}")))
    }

    fn move_clock(&self, ms: i64) {
        match u64::try_from(ms) {
            Ok(ms) => self.clock.advance(Duration::from_millis(ms)),
            Err(_) => self.clock.set(StoreTimestamp(self.clock.now().0 + ms)),
        }
    }

    fn put(&mut self, orders: &[Order], wait: Wait) -> Result<(), Violation> {
        let Some((store, _)) = &self.open else { return Ok(()) };
        let stopped = store.status().poisoned.is_some();
        let from = locked(&self.model).log.len();
        let mut puts = Vec::with_capacity(orders.len());
        for order in orders {
            puts.push(self.message(order));
        }
        let mut messages = Vec::with_capacity(puts.len());
        for put in &puts {
            let (topic, id) = self.setup.queue(put.queue);
            let queue = store.queue(&topic, id).map_err(|error| broken(7, error.to_string()))?;
            let message = Message::new(queue, &put.body).properties_raw(put.properties.clone());
            messages.push(message.wait_store(wait != Wait::Written));
            locked(&self.model).begin(put.clone());
        }
        let done = match messages.as_slice() {
            [one] => store.put(one).map(|put| vec![put]),
            many => store.put_batch(many),
        };
        let appended = match done {
            Ok(appended) => appended,
            Err(error) => {
                // Where the disk failed in the middle of it, its first bytes may have reached the file: whether the
                // messages are there, or of a batch how many, the next open tells. Of every other one nothing is there.
                let half_written = matches!(error, Error::Poisoned { .. }) && !stopped;
                if !half_written {
                    locked(&self.model).refuse(orders.len());
                }
                // A batch longer than a segment is no fault of anybody's.
                let fits = !matches!(error, Error::RecordTooLarge { .. });
                return if fits { self.judge(Some(error)) } else { Ok(()) };
            }
        };
        for (n, put) in appended.iter().enumerate() {
            let (at, time) = (put.physical_offset(), put.store_timestamp());
            locked(&self.model).place(from + n, at, put.size(), time);
        }
        if self.poisoned {
            return Err(broken(9, "a put was taken after a failed sync"));
        }
        if wait == Wait::Not {
            return Ok(());
        }
        let mut outcome = Ok(PutStatus::Ok);
        for put in appended {
            outcome = outcome.and(put.wait());
        }
        match outcome {
            Ok(PutStatus::Ok) => {
                let mut model = locked(&self.model);
                model.acknowledged = model.log.len();
                if self.setup.sync && wait == Wait::Durable {
                    model.durable = model.log.len();
                }
                Ok(())
            }
            Ok(other) => Err(broken(7, format!("a put that waits comes to {other:?}"))),
            Err(error) => self.judge(Some(error)),
        }
    }

    fn message(&self, order: &Order) -> Put {
        let id = locked(&self.model).new_id();
        let mut body = id.to_be_bytes().to_vec();
        // Every fourth is zeros, which is what a sector looks like that never reached the disk.
        let byte =
            |i| if id.is_multiple_of(4) { 0 } else { u8::try_from((id * 31 + i * 7) % 251).unwrap_or(0) };
        body.extend((0..order.body as u64).map(byte));
        let mut properties = PropertiesBuf::default();
        let mut keys = Vec::new();
        // A key of its own, one that few share, one that many do.
        let names = [format!("k{id}"), format!("few{}", id % 5), "all".to_owned()];
        let own = &names[..order.keys.min(names.len())];
        if !own.is_empty() {
            let _ = properties.push("KEYS", &own.join(" "));
            keys.extend(own.iter().map(|key| (key.clone(), false)));
        }
        if order.tagged {
            let tag = format!("tag{}", id % 3);
            let _ = properties.push("TAGS", &tag);
            keys.push((tag, true));
        }
        if order.property > 0 {
            let text: String =
                (0..order.property).map(|i| char::from(b'a' + u8::try_from(i % 26).unwrap_or(0))).collect();
            let _ = properties.push("text", &text);
        }
        let properties = properties.into_bytes();
        let (queue, queue_offset, place, end) = (order.queue, 0, None, PhysicalOffset::ZERO);
        Put { id, queue, queue_offset, body, properties, keys, place, end }
    }

    /// A clean stop and a new start.
    fn close(&mut self) -> Result<(), Violation> {
        let Some((store, steps)) = self.open.take() else { return Ok(()) };
        let closed = steps.close(&store);
        drop(store);
        self.judge(closed.err())?;
        if self.has_failed() {
            // Started again on what the system shows, or on what the disk has.
            return if self.rng.one_in(2) { self.kill() } else { self.power_cut(0) };
        }
        {
            let mut model = locked(&self.model);
            model.durable = model.log.len();
        }
        self.read_closed()?;
        let failed = self.disk.failed_calls();
        self.start()?;
        let report = self.open.as_ref().map(|(store, _)| store.recovery_report().clone());
        match report {
            Some(report) if self.disk.failed_calls() == failed && (report.aborted || !report.is_clean()) => {
                Err(broken(7, format!("a store that was closed needs mending: {report}")))
            }
            _ => Ok(()),
        }
    }

    /// Reads all of a store that was closed, as the open that follows need not; on a copy.
    fn read_closed(&self) -> Result<(), Violation> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let copy = self.disk.crash().disk(Outcome { pages: Kept::All, names: Kept::All }, Arc::clone(&clock));
        if self.setup.copy_on_write {
            copy.set_copy_on_write();
        }
        let proof = self.setup.config().path("cleanStop");
        copy.remove(&proof).map_err(|error| broken(7, format!("{}: {error}", proof.display())))?;
        let (store, _steps) = check::open(&copy, self.setup, &clock)?;
        let report = store.recovery_report();
        if report.aborted || !report.is_clean() {
            return Err(broken(7, format!("a store that was closed needs mending: {report}")));
        }
        Ok(())
    }

    /// The process dies; what the system holds of files is all there.
    fn kill(&mut self) -> Result<(), Violation> {
        self.disk.unwatch();
        let survives = self.open.as_ref().map(|(store, _)| store.status().max_offset);
        self.open = None;
        let mut model = locked(&self.model).clone();
        // What was written survives this, durable or not.
        model.durable_to(survives.unwrap_or_default());
        model.durable = model.durable.max(model.acknowledged);
        self.settle(&model)
    }

    /// The power goes.
    fn power_cut(&mut self, seed: u64) -> Result<(), Violation> {
        self.disk.unwatch();
        let mut rng = Rng::new(seed);
        let crash = self.disk.crash();
        self.note_failures();
        self.open = None;
        let outcomes = if rng.one_in(2) { crash.adversarial() } else { crash.seeded(2, rng.next()) };
        let outcome = rng.pick(&outcomes);
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        if let Some(outcome) = outcome {
            self.disk = self.disk_of(&crash, outcome, &clock);
            (self.broken, self.mended) = (false, 0);
        }
        let model = locked(&self.model).clone();
        self.settle(&model).map_err(|violation| with(violation, outcome))
    }

    /// Checks the disk as it is, takes over what is there, and goes on with it.
    fn settle(&mut self, model: &Model) -> Result<(), Violation> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        if self.broken {
            // Recovery on a disk that still fails may fail, and loses nothing.
            drop(check::attempt(&self.disk, self.setup, &clock)?);
            self.mend();
        }
        let checked = check::check(&self.disk, &clock, self.setup, model, true)?;
        self.tally.images += 1;
        let mut model = locked(&self.model);
        model.cut(checked.count);
        let from = model.log.len() - checked.places.len();
        for (n, (at, size, time)) in checked.places.iter().enumerate() {
            model.place(from + n, *at, *size, *time);
        }
        (model.low, model.high) = (checked.first, checked.first);
        drop(model);
        self.watch();
        self.start()
    }

    /// Checks what a crash at one point may leave.
    fn images(&mut self, point: &Point) -> Result<(), Violation> {
        self.tally.points += 1;
        let seed = self.rng.next();
        let outcomes = match self.every(&point.crash, seed) {
            Some(all) => {
                self.tally.exhaustive += 1;
                all
            }
            None => self.few(&point.crash, seed),
        };
        for outcome in outcomes {
            self.image(&point.crash, outcome, point, 1)
                .map_err(|violation| with(violation, Some(outcome)))?;
        }
        Ok(())
    }

    /// All that a crash may leave but for torn pages, and some of these; where it is this point's turn.
    fn every(&mut self, crash: &Crash, seed: u64) -> Option<Vec<Outcome>> {
        let (pages, budget) = (crash.dirty_pages(), self.budget);
        if pages <= budget.every_pages && crash.combinations() <= Budget::EVERY as u64 {
            let mut all = crash.exhaustive(pages)?;
            all.extend(crash.seeded(if pages > 0 { 2 } else { 0 }, seed));
            return Some(all);
        }
        if pages > budget.exhaustive_pages || !self.rng.one_in(budget.exhaustive_one_in) {
            return None;
        }
        let mut all = crash.exhaustive(budget.exhaustive_pages)?;
        all.extend(crash.seeded(8, seed));
        Some(all)
    }

    /// Some of what a crash may leave. Where nothing is unsynced there is one image.
    fn few(&mut self, crash: &Crash, seed: u64) -> Vec<Outcome> {
        let mut choices = crash.adversarial();
        if choices.len() > 1 {
            choices.extend(crash.seeded(choices.len(), seed));
        }
        let mut few = Vec::with_capacity(self.budget.per_point);
        while few.len() < self.budget.per_point && !choices.is_empty() {
            few.push(choices.swap_remove(self.rng.below(choices.len())));
        }
        few
    }

    fn image(
        &mut self,
        crash: &Crash,
        outcome: Outcome,
        point: &Point,
        depth: usize,
    ) -> Result<(), Violation> {
        if self.tally.images >= self.budget.images {
            return Ok(());
        }
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(point.now));
        let disk = self.disk_of(crash, outcome, &clock);
        self.tally.images += 1;
        *self.tally.depths.entry(depth).or_default() += 1;
        let one_in = match depth {
            1 => 12,
            2 => 4,
            _ => 6,
        };
        let deeper = depth < DEPTH && self.rng.one_in(one_in);
        let again = depth > 1 || self.rng.one_in(3);
        if !deeper {
            return check::check(&disk, &clock, self.setup, &point.model, again).map(drop);
        }
        let within: Arc<Mutex<Vec<Crash>>> = Arc::default();
        let kept = Arc::clone(&within);
        disk.watch(1, move |moment| locked(&kept).push(moment.crash()));
        disk.watch_stores(self.setup.store_stride);
        if self.rng.one_in(3) {
            let times = if self.rng.one_in(2) { 1 } else { u64::MAX };
            let pass = self.rng.below(120) as u64;
            let failure =
                self.rng.pick(&[Failure::Device, Failure::Device, Failure::NoSpace, Failure::Short]);
            disk.fail(Fault { call: None, pass, times, failure: failure.unwrap_or(Failure::Device) });
        }
        // What the first open comes to is checked by another image; here it is killed on its way, or fails on it.
        if let Err(error) = check::attempt(&disk, self.setup, &clock)?
            && disk.failed_calls() == 0
        {
            return Err(broken(7, format!("the store does not open: {error}")));
        }
        disk.unwatch();
        let mut within = std::mem::take(&mut *locked(&within));
        within.push(disk.crash());
        for _ in 0..4.min(within.len()) {
            let Some(crash) = within.get(self.rng.below(within.len())) else { continue };
            let outcomes =
                if self.rng.one_in(2) { crash.adversarial() } else { crash.seeded(2, self.rng.next()) };
            if let Some(outcome) = self.rng.pick(&outcomes) {
                self.image(crash, outcome, point, depth + 1).map_err(|violation| Violation {
                    what: format!("{} (crash {} within recovery: {outcome})", violation.what, depth + 1),
                    ..violation
                })?;
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Stops the store and keeps what a power cut may leave.
    fn last_crash(&mut self) -> Crash {
        self.disk.unwatch();
        let crash = self.disk.crash();
        self.open = None;
        crash
    }

    /// Cuts the power, and opens each of the adversarial images once for each call that this makes and each of
    /// `failures` that can befall it, with that call failing, once and for ever; then the power goes again.
    pub(super) fn failing_recoveries(&mut self, failures: &[Failure]) -> Result<(), (Violation, Breakage)> {
        let crash = self.last_crash();
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        for (left, outcome) in crash.adversarial().into_iter().enumerate() {
            let whole = self.disk_of(&crash, outcome, &clock);
            let none = Fault { call: None, pass: u64::MAX, times: 0, failure: Failure::Device };
            let opened = check::open(&whole, self.setup, &clock);
            drop(opened.map_err(|violation| (violation, Breakage::Recovery(left, none)))?);
            for fault in super::faults(failures, &whole.calls()) {
                self.failing_recovery(&crash, outcome, fault)
                    .map_err(|violation| (violation, Breakage::Recovery(left, fault)))?;
            }
        }
        Ok(())
    }

    /// One of these recoveries: it depends on nothing but what is handed in and on the workload's steps.
    fn failing_recovery(&mut self, crash: &Crash, outcome: Outcome, fault: Fault) -> Result<(), Violation> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let model = locked(&self.model).clone();
        let disk = self.disk_of(crash, outcome, &clock);
        disk.fail(fault);
        drop(check::attempt(&disk, self.setup, &clock)?);
        for (call, count) in disk.failures() {
            *self.failed.entry(call).or_default() += count;
        }
        let left = disk.crash();
        let mut rng = Rng::of(fault.pass, 11 + u64::from(fault.times == 1));
        let second = rng.pick(&left.adversarial()).unwrap_or(outcome);
        let disk = self.disk_of(&left, second, &clock);
        self.tally.images += 1;
        check::check(&disk, &clock, self.setup, &model, true).map(drop).map_err(|violation| Violation {
            what: format!("{} (recovery of {outcome} with {fault}; {second})", violation.what),
            ..violation
        })
    }

    fn disk_of(&self, crash: &Crash, outcome: Outcome, clock: &Arc<dyn Clock>) -> SimDisk {
        let disk = crash.disk(outcome, Arc::clone(clock));
        if self.setup.copy_on_write {
            disk.set_copy_on_write();
        }
        disk
    }

    /// Breaks calls from now on.
    fn broken(&mut self, fault: Fault) {
        self.broken = true;
        self.disk.fail(fault);
    }

    /// Nothing fails any more. What failed before still excuses nothing later.
    fn mend(&mut self) {
        self.disk.heal();
        (self.broken, self.mended) = (false, self.disk.failed_calls());
    }

    /// Whether calls failed since the disk was last mended.
    fn has_failed(&self) -> bool {
        self.disk.failed_calls() > self.mended
    }

    /// Takes note of failures before a disk is left.
    fn note_failures(&mut self) {
        for (call, count) in self.disk.failures() {
            *self.failed.entry(call).or_default() += count;
        }
    }
}

fn with(violation: Violation, outcome: Option<Outcome>) -> Violation {
    match outcome {
        Some(outcome) => Violation { what: format!("{} ({outcome})", violation.what), ..violation },
        None => violation,
    }
}
