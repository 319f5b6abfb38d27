//! Two sides: a row a metric with the ratio, and the interval where it is.

use super::chart::{begin, line, text};
use crate::harness::compare::{Comparison, Finding, Report, words};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const NAMES: f64 = 250.0;
const WORDS: f64 = 620.0;
const ROW: f64 = 26.0;
const TOP: f64 = 78.0;

/// As SVG text.
pub(super) fn render(report: &Report) -> String {
    let drawn = |it: &&Comparison| it.ratio.is_finite() && it.ratio > 0.0;
    let rows: Vec<&Comparison> = report.comparisons.iter().filter(drawn).collect();
    // Symmetric around one, on a logarithmic axis.
    let ends = rows.iter().flat_map(|it| [it.low, it.high, it.ratio]);
    let ends = ends.filter(|it| it.is_finite() && *it > 0.0);
    let reach = ends.map(|it| it.ln().abs()).fold(0.05, f64::max) * 1.1;
    let place = |ratio: f64| {
        let part = ratio.max(1e-9).ln() / reach;
        (NAMES + WORDS) / 2.0 + part.clamp(-1.0, 1.0) * (WORDS - NAMES - 30.0) / 2.0
    };
    let height = TOP + ROW * rows.len() as f64 + 20.0;
    let mut out = String::new();
    begin(&mut out, WIDTH, height);
    let title = format!("{}: b / a", report.workload);
    text(
        &mut out,
        16.0,
        22.0,
        "start",
        "font-size=\"15\" font-weight=\"600\"",
        &title,
    );
    let sides = format!("a = {}, b = {}", report.a, report.b);
    text(&mut out, 16.0, 40.0, "start", "fill=\"#666\"", &sides);
    for tick in [-1.0, -0.5, 0.0, 0.5, 1.0] {
        let ratio = (tick * reach / 1.1_f64).exp();
        let at = place(ratio);
        let stroke = if tick == 0.0 {
            "stroke=\"#333\""
        } else {
            "stroke=\"#e4e4e4\""
        };
        line(&mut out, (at, TOP - 10.0), (at, height - 16.0), stroke);
        let label = format!("{ratio:.2}");
        text(&mut out, at, TOP - 16.0, "middle", "fill=\"#333\"", &label);
    }
    for (at, it) in rows.iter().enumerate() {
        let middle = TOP + ROW * (at as f64 + 0.5);
        let colour = match it.finding {
            Finding::Better => "#009e73",
            Finding::Worse => "#d55e00",
            Finding::NoneSeen | Finding::TooFew => "#777777",
        };
        let size = it.size.map_or(String::new(), |it| format!(" at {it}"));
        let name = format!("{}{size}", it.metric);
        text(
            &mut out,
            NAMES - 8.0,
            middle + 4.0,
            "end",
            "fill=\"#111\"",
            &name,
        );
        if it.low.is_finite() && it.high.is_finite() {
            let stroke = format!("stroke=\"{colour}\" stroke-width=\"3\" opacity=\"0.6\"");
            line(
                &mut out,
                (place(it.low), middle),
                (place(it.high), middle),
                &stroke,
            );
        }
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"5\" fill=\"{colour}\"/>",
            place(it.ratio)
        );
        let fill = format!("fill=\"{colour}\"");
        text(
            &mut out,
            WORDS + 8.0,
            middle + 4.0,
            "start",
            &fill,
            &words(it),
        );
    }
    out += "</svg>\n";
    out
}
