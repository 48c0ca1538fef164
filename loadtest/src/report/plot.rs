//! Line charts as SVG, limited to the needs of the page.

use std::fmt::Write;

/// In the units of the view box; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// Colours that remain distinct with colour blindness, on white and on black.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];

/// Number of steps between the grid lines of an axis.
const STEPS: u32 = 4;

pub(super) struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The scale of the horizontal axis.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    Seconds,
    /// Shares in percent, each halving of what is missing to 100 as wide as the one before.
    Tail,
}

impl Axis {
    fn place(self, x: f64) -> f64 {
        match self {
            Self::Seconds => x,
            // The last point, 100 %, has no place on this scale: it is drawn a step past the others.
            Self::Tail => -((100.0 - x).max(0.001) / 100.0).log10(),
        }
    }

    fn marks(self, last: f64) -> Vec<(f64, String)> {
        match self {
            Self::Seconds => {
                let step = round_up(last / 6.0);
                let count = (last / step).floor() as u32;
                (0..=count).map(|n| f64::from(n) * step).map(|x| (x, format!("{x} s"))).collect()
            }
            Self::Tail => [0.0, 90.0, 99.0, 99.9, 99.99]
                .into_iter()
                .filter(|share| self.place(*share) <= last)
                .map(|share| (self.place(share), format!("{share} %")))
                .collect(),
        }
    }
}

/// The next of 1, 2, 5, 10, 20, 50 …
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= value);
    factor.unwrap_or(10.0) * power
}

/// Draws a chart of these lines; an empty text if there is no point.
pub(super) fn chart(title: &str, unit: &str, axis: Axis, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    if points().count() == 0 {
        return String::new();
    }
    let last = points().map(|(x, _)| axis.place(*x)).fold(f64::MIN_POSITIVE, f64::max);
    let step = round_up(points().map(|(_, y)| *y).fold(1e-6, f64::max) / f64::from(STEPS));
    let top = step * f64::from(STEPS);
    let x = |x: f64| LEFT + x / last * (WIDTH - LEFT - RIGHT);
    let y = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        r#"<figure><figcaption>{title}, {unit}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#
    );
    for n in 0..=STEPS {
        let value = step * f64::from(n);
        let (at, end, decimals) = (y(value), WIDTH - RIGHT, if step < 1.0 { 2 } else { 0 });
        // Writing to a string can't fail.
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {at:.1}H{end}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{value:.decimals$}</text>"#,
            LEFT - 6.0,
            at + 4.0,
        );
    }
    for (place, label) in axis.marks(last) {
        let at = x(place);
        let _ = write!(
            svg,
            r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            HEIGHT - 8.0
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points =
            line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(axis.place(*px)), y(*py)));
        let points: Vec<String> = points.collect();
        let _ = write!(svg, r#"<polyline stroke="{colour}" points="{}"/>"#, points.join(" "));
    }
    svg += "</svg><p>";
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(svg, r#"<span style="color:{colour}">■</span> {} "#, line.name);
    }
    svg + "</p></figure>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        for (value, round) in [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (21.0, 50.0), (60.0, 100.0)] {
            assert!((round_up(value) - round).abs() < 1e-9, "{value} {}", round_up(value));
        }
    }

    #[test]
    fn points_stay_within_the_picture() {
        let lines =
            [Line { name: "a".to_owned(), points: vec![(0.0, 0.0), (99.0, 7.0), (100.0, 9.0)] }];
        let svg = chart("t", "ms", Axis::Tail, &lines);
        let (_, rest) = svg.split_once("points=\"").unwrap();
        let (points, _) = rest.split_once('"').unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH).contains(&x) && (TOP..=HEIGHT).contains(&y), "{point}");
        }
        assert_eq!(chart("t", "ms", Axis::Seconds, &[]), "");
    }
}
