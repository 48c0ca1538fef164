//! The beat of a replica: what looks at something several times a second looks at the same moments.
//! An idle machine spends more on waking than on the looks.

use std::{sync::LazyLock, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Time between two beats. A ping at each beat, and its time-out, find a silent Redis within half a
/// second.
pub(crate) const BEAT: Duration = Duration::from_millis(200);

/// A moment of the past at which there was a beat: random, so that replicas started together do not
/// beat together.
static ORIGIN: LazyLock<Instant> =
    LazyLock::new(|| Instant::now() + BEAT.mul_f64(rand::random_range(0.0..1.0)));

/// Ticks once in so many beats. Missed ticks are left out.
pub(crate) fn each(beats: u32) -> Interval {
    let missed = ORIGIN.elapsed().as_nanos() / BEAT.as_nanos();
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    let mut ticks = interval_at(*ORIGIN + BEAT * (missed + 1), BEAT * beats);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
