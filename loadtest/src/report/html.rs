//! The result as a self-contained HTML page.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    Phase, Report, Second,
    plot::{Axis, Line, chart},
};

const STYLE: &str = "
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}
td,th{padding:.15rem .8rem .15rem 0;text-align:right}
td:first-child,th:first-child{text-align:left}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem}
figure{margin:0}svg{width:100%}svg text{font-size:12px;fill:currentColor}
polyline{fill:none;stroke-width:1.6}.grid{stroke:currentColor;opacity:.15}
.right{color:#007a55}.wrong{color:#d55e00}code{overflow-wrap:anywhere}
";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn page(report: &Report) -> String {
    let Report { scenario, version, began_at, machine, .. } = report;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Load test: {scenario}</title><style>{STYLE}</style><h1>Load test: {scenario}</h1>"
    );
    let commit =
        report.commit.as_deref().map_or(String::new(), |commit| format!(", commit {commit}"));
    let class = if report.is_right() { "right" } else { "wrong" };
    // Writing to a string can't fail, here and below.
    let _ = write!(
        page,
        "<p class=\"{class}\"><strong>{}</strong></p><p><code>{}</code></p>\
         <p>{began_at}, version {version}{}; {} cores, {} MiB, {}</p>",
        report.verdict(),
        escape(&report.command),
        escape(&commit),
        machine.cores,
        machine.memory_mib,
        escape(&machine.system),
    );
    let lines = report.exceeded.iter().chain(&report.counts.first_violations);
    lines.for_each(|line| page += &format!("<p class=\"wrong\">{}</p>", escape(line)));
    if !report.figures.is_empty() {
        page += "<table>";
        for figure in &report.figures {
            let _ = write!(page, "<tr><td>{}</td></tr>", escape(&figure.to_string()));
        }
        page += "</table>";
    }
    for (what, count) in report.oddities() {
        let _ = write!(page, "<p>{what}: {count}</p>");
    }
    report.phases.iter().for_each(|phase| page += &section(phase));
    page + "</html>\n"
}

fn section(phase: &Phase) -> String {
    let Phase { name, unit, count, seconds, per_second, .. } = phase;
    let mut html = format!(
        "<h2>{name}</h2><p>{count} {unit} in {seconds:.1} s, {per_second:.0} a second</p>\
         <table><tr><th>ms<th>p50<th>p90<th>p99<th>p99.9<th>slowest</tr>"
    );
    for (name, l) in &phase.latencies {
        let _ = write!(
            html,
            "<tr><td>{name}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}</tr>",
            l.p50, l.p90, l.p99, l.p999, l.max
        );
    }
    html += "</table><table><tr><th>process<th>CPU s per 1,000<th>MiB before<th>most<th>after</tr>";
    for (name, cpu) in &phase.cpu_seconds_per_1000 {
        let memory = phase.memory_mib.get(name);
        let memory = memory.map_or(String::new(), |m| {
            format!("<td>{:.0}<td>{:.0}<td>{:.0}", m.before, m.max, m.after)
        });
        let _ = write!(html, "<tr><td>{}<td>{cpu:.4}{memory}</tr>", escape(name));
    }
    html + "</table><div class=\"charts\">" + &charts(phase) + "</div>"
}

fn charts(phase: &Phase) -> String {
    let line = |name: &str, value: &dyn Fn(&Second) -> Option<f64>| Line {
        name: escape(name),
        points: phase.timeline.iter().filter_map(|s| Some((s.at, value(s)?))).collect(),
    };
    // A second without arrivals has no latency.
    let latency = |name: &str, value: fn(&Second) -> f64| {
        line(name, &move |s| (s.latency.count > 0).then(|| value(s)))
    };
    let names: BTreeSet<&String> = phase.timeline.iter().flat_map(|s| s.cores.keys()).collect();
    let curve = Line { name: "slowest of this share".to_owned(), points: phase.curve.clone() };
    [
        chart(
            "throughput",
            &format!("{} a second", phase.unit),
            Axis::Seconds,
            &[line(phase.unit, &|s| Some(s.per_second))],
        ),
        chart(
            "latency over time",
            "ms",
            Axis::Seconds,
            &[
                latency("p50", |s| s.latency.p50),
                latency("p99", |s| s.latency.p99),
                latency("slowest", |s| s.latency.max),
            ],
        ),
        chart("latency by share", "ms", Axis::Tail, &[curve]),
        chart(
            "CPU",
            "cores",
            Axis::Seconds,
            &names.iter().map(|n| line(n, &|s| s.cores.get(*n).copied())).collect::<Vec<_>>(),
        ),
        chart(
            "memory",
            "MiB",
            Axis::Seconds,
            &names.iter().map(|n| line(n, &|s| s.memory_mib.get(*n).copied())).collect::<Vec<_>>(),
        ),
    ]
    .concat()
}
