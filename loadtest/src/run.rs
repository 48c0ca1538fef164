//! A run: what a scenario works with, and how its stretches are measured.

use std::{
    collections::BTreeMap,
    future::Future,
    io::IsTerminal,
    pin::pin,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use crate::{
    error::Error,
    limits::Limits,
    load::{Common, Target},
    meter::{Latency, Meter, curve},
    report::{Figure, Machine, Memory, Phase, Report, Second},
    rest::Rest,
    scenario::Scenario,
    tally::Tally,
    usage::Sample,
};

/// How often it is said how a run goes, where nobody sees a bar move.
const LINE_EVERY: u64 = 10;

/// What every scenario works with.
pub(crate) struct Run<'a> {
    pub target: &'a Target,
    pub common: &'a Common,
    pub rest: Rest,
    pub tally: Arc<Tally>,
    /// Unique to the run, since rooms are used again.
    pub id: String,
}

/// What a scenario found.
#[derive(Default)]
pub(crate) struct Findings {
    pub phases: Vec<Phase>,
    pub figures: Vec<Figure>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Answered,
    Arrived,
    Synced,
}

/// How a stretch of a run is measured.
pub(crate) struct Plan {
    pub name: &'static str,
    /// What is counted, and by which meter.
    pub unit: &'static str,
    pub counted: Which,
    /// Limits on latencies hold for the first.
    pub latencies: &'static [(&'static str, Which)],
    /// How long it will take, where that is known.
    pub span: Option<Duration>,
    pub limits: Limits,
}

impl Plan {
    /// Messages from one member to the other.
    pub(crate) fn messages(name: &'static str, span: Option<Duration>, limits: &Limits) -> Self {
        Self {
            name,
            unit: "messages",
            counted: Which::Answered,
            latencies: &[("POST to socket", Which::Arrived), ("POST", Which::Answered)],
            span,
            limits: limits.clone(),
        }
    }
}

impl Run<'_> {
    fn meter(&self, which: Which) -> &Meter {
        match which {
            Which::Answered => &self.tally.answered,
            Which::Arrived => &self.tally.arrived,
            Which::Synced => &self.tally.synced,
        }
    }

    /// Does `work`, and looks at it every second.
    pub(crate) async fn measure<T>(
        &self,
        plan: Plan,
        work: impl Future<Output = T>,
    ) -> Result<(T, Phase), Error> {
        for which in [Which::Answered, Which::Arrived, Which::Synced] {
            self.meter(which).take();
        }
        self.show(&plan);
        let mut watch = Watch::new(self, &plan)?;
        let mut work = pin!(work);
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.tick().await;
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = every.tick() => watch.look()?,
            }
        };
        let phase = watch.finish(plan)?;
        self.tally.bar.set_message("");
        Ok((outcome, phase))
    }

    fn show(&self, plan: &Plan) {
        let bar = &self.tally.bar;
        bar.set_prefix(plan.name);
        bar.set_position(0);
        match plan.span {
            Some(span) => {
                bar.set_length(span.as_secs());
                bar.set_style(style("{prefix} [{bar:24}] {pos}/{len} s  {msg}"));
            }
            None => bar.set_style(style("{prefix} {spinner} {pos} s  {msg}")),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| unreachable!("the templates are constants"))
}

/// A phase while it runs.
struct Watch<'a> {
    run: &'a Run<'a>,
    counted: &'a Meter,
    latency: &'a Meter,
    unit: &'static str,
    name: &'static str,
    began: Instant,
    first: Sample,
    last: Sample,
    looked: Instant,
    count: u64,
    most: BTreeMap<String, u64>,
    timeline: Vec<Second>,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl<'a> Watch<'a> {
    fn new(run: &'a Run<'a>, plan: &Plan) -> Result<Self, Error> {
        let first = Sample::take(&run.target.processes)?;
        let latency = plan.latencies.first().map_or(plan.counted, |(_, which)| *which);
        let now = Instant::now();
        Ok(Self {
            run,
            counted: run.meter(plan.counted),
            latency: run.meter(latency),
            unit: plan.unit,
            name: plan.name,
            began: now,
            last: first.clone(),
            most: first.iter().map(|(name, usage)| (name.to_owned(), usage.memory)).collect(),
            first,
            looked: now,
            count: 0,
            timeline: Vec::new(),
        })
    }

    fn look(&mut self) -> Result<(), Error> {
        let sample = Sample::take(&self.run.target.processes)?;
        let now = Instant::now();
        let seconds = now.duration_since(self.looked).as_secs_f64();
        let count = self.counted.count();
        let per_second = (count - self.count) as f64 / seconds;
        let cores = sample.cpu_since(&self.last).into_iter();
        for (name, usage) in sample.iter() {
            let most = self.most.entry(name.to_owned()).or_default();
            *most = usage.memory.max(*most);
        }
        let second = Second {
            at: now.duration_since(self.began).as_secs_f64(),
            per_second,
            latency: self.latency.tick(),
            cores: cores.map(|(name, used)| (name, used.as_secs_f64() / seconds)).collect(),
            memory_mib: sample
                .iter()
                .map(|(name, usage)| (name.to_owned(), mib(usage.memory)))
                .collect(),
        };
        self.say(&second);
        self.timeline.push(second);
        (self.last, self.looked, self.count) = (sample, now, count);
        Ok(())
    }

    fn say(&self, second: &Second) {
        let tally = &self.run.tally;
        let (unit, p99, violations) = (self.unit, second.latency.p99, tally.violations());
        let line =
            format!("{:.0} {unit}/s, p99 {p99:.1} ms, {violations} violations", second.per_second);
        tally.bar.set_position(self.began.elapsed().as_secs());
        if (self.timeline.len() as u64 + 1).is_multiple_of(LINE_EVERY)
            && !std::io::stderr().is_terminal()
        {
            tally.say(&format!("{} {:.0} s: {line}", self.name, second.at));
        }
        tally.bar.set_message(line);
    }

    fn finish(mut self, plan: Plan) -> Result<Phase, Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        // What came since the last look, where that is enough to be shown.
        if self.looked.elapsed() > Duration::from_millis(200) {
            self.look()?;
        }
        let after = Sample::take(&self.run.target.processes)?;
        let count = self.counted.count();
        let per_thousand = |used: Duration| used.as_secs_f64() * 1e3 / count.max(1) as f64;
        let used = after.cpu_since(&self.first).into_iter();
        let memory = after.iter().map(|(name, now)| {
            let before = self.first.memory(name).unwrap_or_default();
            let max = self.most.get(name).copied().unwrap_or_default().max(now.memory);
            let memory = Memory { before: mib(before), max: mib(max), after: mib(now.memory) };
            (name.to_owned(), memory)
        });
        let mut phase = Phase {
            name: plan.name,
            unit: plan.unit,
            count,
            seconds,
            per_second: count as f64 / seconds,
            cpu_seconds_per_1000: used.map(|(name, used)| (name, per_thousand(used))).collect(),
            memory_mib: memory.collect(),
            latencies: Vec::new(),
            curve: Vec::new(),
            timeline: self.timeline,
            exceeded: Vec::new(),
        };
        for (name, which) in plan.latencies {
            let values = self.run.meter(*which).take();
            if phase.curve.is_empty() {
                phase.curve = curve(&values);
            }
            phase.latencies.push((name, Latency::of(&values)));
        }
        phase.exceeded = plan.limits.judge(&phase);
        Ok(phase)
    }
}

/// Runs a scenario against a target and gives what came of it.
pub(crate) async fn run(target: &Target, scenario: &Scenario) -> Result<Report, Error> {
    let began_at = Timestamp::now().to_string();
    let run = Run {
        target,
        common: scenario.common(),
        rest: Rest::new()?,
        tally: Arc::new(Tally::new(ProgressBar::new(0))),
        id: format!("{:08x}", rand::random::<u32>()),
    };
    let found = scenario.run(&run).await;
    run.tally.bar.finish_and_clear();
    let Findings { phases, figures } = found?;
    let of_phases = phases.iter().flat_map(|phase| phase.exceeded.iter().cloned());
    let exceeded = of_phases.chain(figures.iter().filter_map(Figure::excess)).collect();
    Ok(Report {
        scenario: scenario.name(),
        command: command(),
        version: env!("CARGO_PKG_VERSION"),
        commit: commit(),
        began_at,
        machine: Machine::this(),
        phases,
        figures,
        counts: run.tally.counts(),
        exceeded,
    })
}

/// What was typed, without the secret.
fn command() -> String {
    let mut hide = false;
    let words =
        std::env::args().map(|word| match std::mem::replace(&mut hide, word == "--jwt-secret") {
            true => "…".to_owned(),
            false if word.starts_with("--jwt-secret=") => "--jwt-secret=…".to_owned(),
            false => word,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// Of the folder that this was started in.
fn commit() -> Option<String> {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
