//! A row of a result.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio_postgres::types::FromSql;

/// A row whose columns are found at once where they are read in the order in which the statement names
/// them. The driver's row compares a name with those of all columns before it, which in lists and pages,
/// with their dozens of columns, cost more than to read the values.
#[derive(Debug)]
pub(super) struct Row {
    row: tokio_postgres::Row,
    /// The column that was read last.
    last: AtomicUsize,
}

/// Takes over the driver's rows.
pub(super) fn rows_of(driver: Vec<tokio_postgres::Row>) -> Vec<Row> {
    driver.into_iter().map(Row::from).collect()
}

impl From<tokio_postgres::Row> for Row {
    fn from(row: tokio_postgres::Row) -> Self {
        Self { row, last: AtomicUsize::new(0) }
    }
}

impl Row {
    /// Reads a column. Panics where the statement has no such column, or one of another type: both would be
    /// a defect of this program.
    pub(super) fn get<'a, T: FromSql<'a>>(&'a self, name: &str) -> T {
        let (columns, last) = (self.row.columns(), self.last.load(Relaxed));
        let at = (last..columns.len()).chain(0..last).find(|&at| columns[at].name() == name);
        let Some(at) = at else { panic!("no column {name}") };
        self.last.store(at, Relaxed);
        self.row.get(at)
    }
}
