//! The figures: what was measured, beside what, and whether it is what it should be.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What it is.
    pub(super) name: &'static str,
    /// What was measured, with its unit; the reason when it could not be.
    pub(super) measured: Result<String, String>,
    /// The same of what it is compared with.
    pub(super) beside: String,
    /// What it should be; none for what is only told.
    pub(super) goal: Option<&'static str>,
    /// Whether it is.
    pub(super) met: Option<bool>,
}

impl Figure {
    /// A figure with a goal.
    pub(super) fn new(
        name: &'static str,
        measured: impl Into<String>,
        beside: impl Into<String>,
        goal: &'static str,
        met: bool,
    ) -> Self {
        let (measured, beside) = (Ok(measured.into()), beside.into());
        Self { name, measured, beside, goal: Some(goal), met: Some(met) }
    }

    /// A figure that is only told.
    pub(super) fn told(name: &'static str, measured: impl Into<String>) -> Self {
        let measured = Ok(measured.into());
        Self { name, measured, beside: String::new(), goal: None, met: None }
    }

    /// A figure that could not be measured.
    pub(super) fn unmeasured(name: &'static str, why: impl Into<String>) -> Self {
        let measured = Err(why.into());
        Self { name, measured, beside: String::new(), goal: None, met: None }
    }

    fn verdict(&self) -> &'static str {
        match (&self.measured, self.met) {
            (Err(_), _) => "not measured",
            (_, Some(true)) => "met",
            (_, Some(false)) => "MISSED",
            (_, None) => "",
        }
    }
}

/// The table for a person.
pub(super) fn table(figures: &[Figure]) -> String {
    let head = ["figure", "measured", "beside", "goal", ""].map(str::to_owned);
    let rows = figures.iter().map(|figure| {
        let measured = figure.measured.clone().unwrap_or_else(|why| why);
        let goal = figure.goal.unwrap_or_default().to_owned();
        [figure.name.to_owned(), measured, figure.beside.clone(), goal, figure.verdict().into()]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The same for a program.
pub(super) fn json(figures: &[Figure]) -> Value {
    let rows = figures.iter().map(|figure| {
        json!({
            "figure": figure.name,
            "measured": figure.measured.as_ref().ok(),
            "not-measured-because": figure.measured.as_ref().err(),
            "beside": figure.beside,
            "goal": figure.goal,
            "met": figure.met,
        })
    });
    rows.collect()
}
