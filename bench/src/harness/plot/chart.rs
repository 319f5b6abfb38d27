//! Charts with two axes, as SVG text.

use crate::harness::{format, result::Unit};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 78.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 50.0;
const RIGHT: f64 = 18.0;
const LEGEND_LINE: f64 = 18.0;

/// Colours that those who see fewer of them can tell apart (Okabe and Ito).
pub(super) const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Dots,
    Steps,
}

pub(super) struct Series {
    pub(super) name: String,
    /// By rising x.
    pub(super) points: Vec<(f64, f64)>,
    /// A line to be dashed behind the points; empty for none.
    pub(super) fit: Vec<(f64, f64)>,
    pub(super) style: Style,
}

pub(super) struct Chart {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// Name, scale and unit of the axis.
    pub(super) x: (String, Scale, Unit),
    pub(super) y: (String, Scale, Unit),
    /// At least one, with at least one point.
    pub(super) series: Vec<Series>,
}

/// From values to places on the page.
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Axis {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for it in values {
            low = low.min(it);
            high = high.max(it);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                if high <= low {
                    high = low + 1.0;
                }
            }
            Scale::Logarithmic => {
                // Some room, so that points do not sit on the frame; and at least a factor of
                // two, so that noise does not look like a slope.
                let room = (high / low).powf(0.04).max((2.0 * low / high).sqrt());
                (low, high) = (low / room, high * room);
            }
        }
        Axis {
            low,
            high,
            scale,
            from,
            to,
        }
    }

    fn place(&self, it: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (it - self.low) / (self.high - self.low),
            Scale::Logarithmic => (it / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + (self.to - self.from) * part
    }

    /// Where lines go, and whether they have a number.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (self.high - self.low) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|it| it * power);
                let step = step.into_iter().find(|it| *it >= rough).unwrap_or(power);
                let count = ((self.high - self.low) / step * 1.000_001) as usize;
                (0..=count).map(|it| self.low + step * it as f64).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = match decades {
                    it if it > 3.0 => &[1.0],
                    it if it > 1.0 => &[1.0, 2.0, 5.0],
                    _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
                };
                let every = (decades / 8.0).ceil().max(1.0) as i32;
                let first = self.low.log10().floor() as i32;
                let last = self.high.log10().ceil() as i32;
                let powers = (first..=last).filter(|it| it.rem_euclid(every) == 0);
                let all =
                    powers.flat_map(|it| steps.iter().map(move |step| step * 10_f64.powi(it)));
                let mut all: Vec<f64> = all
                    .filter(|it| (self.low..=self.high).contains(it))
                    .collect();
                while all.len() > 9 {
                    let mut at = 0;
                    all.retain(|_| {
                        at += 1;
                        at % 2 == 1
                    });
                }
                all
            }
        }
    }
}

/// A text with nothing in it that would be a tag.
pub(super) fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn begin(out: &mut String, width: f64, height: f64) {
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
}

pub(super) fn text(out: &mut String, x: f64, y: f64, anchor: &str, more: &str, it: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{}</text>",
        escape(it)
    );
}

pub(super) fn line(out: &mut String, from: (f64, f64), to: (f64, f64), more: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {more}/>",
        from.0, from.1, to.0, to.1
    );
}

/// Charts below each other; empty for none.
pub(super) fn render(charts: &[Chart]) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let height = |it: &Chart| HEIGHT + it.series.len() as f64 * LEGEND_LINE + 16.0;
    let mut out = String::new();
    begin(&mut out, WIDTH, charts.iter().map(height).sum());
    let mut top = 0.0;
    for it in charts {
        draw(&mut out, it, top);
        top += height(it);
    }
    out += "</svg>\n";
    out
}

fn draw(out: &mut String, chart: &Chart, top: f64) {
    let all = || chart.series.iter().flat_map(|it| &it.points);
    let (right, bottom) = (WIDTH - RIGHT, top + HEIGHT - BOTTOM);
    let x = Axis::new(all().map(|it| it.0), chart.x.1, LEFT, right);
    let y = Axis::new(all().map(|it| it.1), chart.y.1, bottom, top + TOP);
    text(
        out,
        LEFT,
        top + 22.0,
        "start",
        "font-size=\"15\" font-weight=\"600\"",
        &chart.title,
    );
    text(
        out,
        LEFT,
        top + 40.0,
        "start",
        "fill=\"#666\"",
        &chart.subtitle,
    );
    for tick in x.ticks() {
        let at = x.place(tick);
        line(out, (at, top + TOP), (at, bottom), "stroke=\"#e4e4e4\"");
        text(
            out,
            at,
            bottom + 16.0,
            "middle",
            "fill=\"#333\"",
            &format::value(tick, chart.x.2),
        );
    }
    for tick in y.ticks() {
        let at = y.place(tick);
        line(out, (LEFT, at), (right, at), "stroke=\"#e4e4e4\"");
        text(
            out,
            LEFT - 6.0,
            at + 4.0,
            "end",
            "fill=\"#333\"",
            &format::value(tick, chart.y.2),
        );
    }
    line(out, (LEFT, bottom), (right, bottom), "stroke=\"#333\"");
    line(out, (LEFT, top + TOP), (LEFT, bottom), "stroke=\"#333\"");
    text(
        out,
        (LEFT + right) / 2.0,
        bottom + 36.0,
        "middle",
        "fill=\"#333\"",
        &chart.x.0,
    );
    let middle = (top + TOP + bottom) / 2.0;
    let turned = format!("fill=\"#333\" transform=\"rotate(-90 14 {middle:.1})\"");
    text(out, 14.0, middle, "middle", &turned, &chart.y.0);
    for (at, it) in chart.series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        draw_series(out, it, colour, &x, &y);
        let height = bottom + BOTTOM + 6.0 + at as f64 * LEGEND_LINE;
        let stroke = format!("stroke=\"{colour}\" stroke-width=\"3\"");
        line(
            out,
            (LEFT, height - 4.0),
            (LEFT + 18.0, height - 4.0),
            &stroke,
        );
        text(out, LEFT + 26.0, height, "start", "fill=\"#111\"", &it.name);
    }
}

fn draw_series(out: &mut String, series: &Series, colour: &str, x: &Axis, y: &Axis) {
    let place = |(at, value): &(f64, f64)| (x.place(*at), y.place(*value));
    if let [from, .., to] = &series.fit[..] {
        let dashed = format!("stroke=\"{colour}\" stroke-dasharray=\"5 4\" opacity=\"0.7\"");
        line(out, place(from), place(to), &dashed);
    }
    if series.style == Style::Dots {
        for it in &series.points {
            let (x, y) = place(it);
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"
            );
        }
        return;
    }
    let mut path = String::new();
    let mut last: Option<(f64, f64)> = None;
    for it in thin(&series.points) {
        let (x, y) = place(it);
        let _ = match last {
            None => write!(path, "M{x:.1} {y:.1}"),
            Some(_) => write!(path, "H{x:.1}V{y:.1}"),
        };
        last = Some((x, y));
    }
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
    );
}

/// Steps that no screen could show are left out; first and last stay.
fn thin(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    const SHOWN: usize = 1000;
    let every = points.len().div_ceil(SHOWN).max(1);
    let last = points.len().saturating_sub(1);
    let shown = move |(at, _): &(usize, &(f64, f64))| at.is_multiple_of(every) || *at == last;
    points.iter().enumerate().filter(shown).map(|(_, it)| it)
}
