//! What was measured, beside what was promised.

use std::fmt;

use serde_json::{Value, json};

/// One line of the table. A row without a budget informs only.
pub struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    detail: String,
    budget: Option<Budget>,
}

#[derive(Clone, Copy)]
enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, detail: String::new(), budget: None }
    }

    /// The median; its detail is the 95th percentile and how many there were. None of none.
    pub fn median(what: impl Into<String>, mut values: Vec<f64>, unit: &'static str) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(last as f64 * share).round() as usize];
        let row = Self::new(what, at(0.5), unit);
        Some(row.detail(format!("p50 of {}; p95 {} {unit}", values.len(), Number(at(0.95)))))
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub fn at_most(mut self, budget: f64) -> Self {
        self.budget = Some(Budget::AtMost(budget));
        self
    }

    pub fn at_least(mut self, budget: f64) -> Self {
        self.budget = Some(Budget::AtLeast(budget));
        self
    }

    fn holds(&self) -> Option<bool> {
        self.budget.map(|budget| match budget {
            Budget::AtMost(most) => self.value <= most,
            Budget::AtLeast(least) => self.value >= least,
        })
    }

    fn verdict(&self) -> &'static str {
        match self.holds() {
            Some(true) => "ok",
            Some(false) => "over",
            None => "",
        }
    }

    fn budget(&self) -> String {
        match self.budget {
            Some(Budget::AtMost(most)) => format!("≤ {} {}", Number(most), self.unit),
            Some(Budget::AtLeast(least)) => format!("≥ {} {}", Number(least), self.unit),
            None => String::new(),
        }
    }

    pub fn json(&self) -> Value {
        let (at_most, at_least) = match self.budget {
            Some(Budget::AtMost(most)) => (Some(most), None),
            Some(Budget::AtLeast(least)) => (None, Some(least)),
            None => (None, None),
        };
        json!({
            "what": self.what, "value": self.value, "unit": self.unit, "detail": self.detail,
            "at_most": at_most, "at_least": at_least, "ok": self.holds(),
        })
    }
}

/// Three digits that mean something.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            0.0 => f.write_str("0"),
            size if size >= 100.0 || self.0.fract() == 0.0 => write!(f, "{:.0}", self.0),
            size if size >= 10.0 => write!(f, "{:.1}", self.0),
            size if size >= 1.0 => write!(f, "{:.2}", self.0),
            _ => write!(f, "{:.3}", self.0),
        }
    }
}

/// The rows as an aligned table.
pub fn print(rows: &[Row]) {
    let mut lines = vec![["what", "measured", "budget", "", ""].map(str::to_owned)];
    for row in rows {
        let measured = format!("{} {}", Number(row.value), row.unit);
        lines.push([row.what.clone(), measured, row.budget(), row.verdict().into(), row.detail.clone()]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);
    for [what, measured, budget, verdict, detail] in &lines {
        let [w, m, b, v] = widths;
        println!("{}", format!("{what:w$}  {measured:>m$}  {budget:>b$}  {verdict:v$}  {detail}").trim_end());
    }
}
