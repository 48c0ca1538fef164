//! The context of a scenario, and the measurement of its phases.

use std::{
    collections::BTreeMap,
    future::Future,
    io::IsTerminal,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::ProgressStyle;

use crate::{
    error::Error,
    report::{
        Figure, Memory, Phase, Second,
        counters::Counters,
        limits::Limits,
        meter::{Latency, Meter, curve},
        usage::Sample,
    },
    rest::Rest,
    target::{Common, Target},
};

/// Seconds between two lines of progress if stderr is no terminal.
const LINE_EVERY: u64 = 10;

/// The target, options and counters of one run.
pub(crate) struct Context<'a> {
    pub target: &'a Target,
    pub common: &'a Common,
    pub rest: Rest,
    pub counters: Arc<Counters>,
    /// Unique to the run, since later runs use the same chats.
    pub id: String,
}

/// The phases and figures that a scenario measured.
#[derive(Default)]
pub(crate) struct Findings {
    pub phases: Vec<Phase>,
    pub figures: Vec<Figure>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Metric {
    Answered,
    Arrived,
    Synced,
}

/// Describes how a phase is measured.
pub(crate) struct Plan {
    pub name: &'static str,
    /// The counted operation, in the plural.
    pub unit: &'static str,
    pub counted: Metric,
    /// Limits on latency apply to the first one.
    pub latencies: &'static [(&'static str, Metric)],
    /// The expected duration, if known.
    pub span: Option<Duration>,
    pub limits: Limits,
}

impl Plan {
    /// Plans a phase in which members of a chat send to each other.
    pub(crate) fn messages(name: &'static str, span: Option<Duration>, limits: &Limits) -> Self {
        Self {
            name,
            unit: "messages",
            counted: Metric::Answered,
            latencies: &[("POST to socket", Metric::Arrived), ("POST", Metric::Answered)],
            span,
            limits: limits.clone(),
        }
    }
}

impl Context<'_> {
    fn meter(&self, which: Metric) -> &Meter {
        match which {
            Metric::Answered => &self.counters.answered,
            Metric::Arrived => &self.counters.arrived,
            Metric::Synced => &self.counters.synced,
        }
    }

    /// Runs `work`, and samples its progress every second.
    pub(crate) async fn measure<T>(
        &self,
        plan: Plan,
        work: impl Future<Output = T>,
    ) -> Result<(T, Phase), Error> {
        for which in [Metric::Answered, Metric::Arrived, Metric::Synced] {
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
        self.counters.bar.set_message("");
        Ok((outcome, phase))
    }

    fn show(&self, plan: &Plan) {
        let bar = &self.counters.bar;
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
    context: &'a Context<'a>,
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
    fn new(context: &'a Context<'a>, plan: &Plan) -> Result<Self, Error> {
        let first = Sample::take(&context.target.processes)?;
        let latency = plan.latencies.first().map_or(plan.counted, |(_, which)| *which);
        let now = Instant::now();
        Ok(Self {
            context,
            counted: context.meter(plan.counted),
            latency: context.meter(latency),
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
        let sample = Sample::take(&self.context.target.processes)?;
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
        let counters = &self.context.counters;
        let (unit, p99, violations) = (self.unit, second.latency.p99, counters.violations());
        let line =
            format!("{:.0} {unit}/s, p99 {p99:.1} ms, {violations} violations", second.per_second);
        counters.bar.set_position(self.began.elapsed().as_secs());
        if (self.timeline.len() as u64 + 1).is_multiple_of(LINE_EVERY)
            && !std::io::stderr().is_terminal()
        {
            counters.say(&format!("{} {:.0} s: {line}", self.name, second.at));
        }
        counters.bar.set_message(line);
    }

    fn finish(mut self, plan: Plan) -> Result<Phase, Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        // The rest since the last sample, unless it is too short to give a rate.
        if self.looked.elapsed() > Duration::from_millis(200) {
            self.look()?;
        }
        let after = Sample::take(&self.context.target.processes)?;
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
            let values = self.context.meter(*which).take();
            if phase.curve.is_empty() {
                phase.curve = curve(&values);
            }
            phase.latencies.push((name, Latency::of(&values)));
        }
        phase.exceeded = plan.limits.judge(&phase);
        Ok(phase)
    }
}
