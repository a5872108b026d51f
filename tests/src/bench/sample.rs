//! Measurements, and the figures that are derived from them.

use serde::Serialize;

/// One run of one contender.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// User and system seconds of the program and everything that it ran; not the server's.
    pub cpu_seconds: Option<f64>,
    /// User and system seconds of the Postgres server meanwhile.
    pub server_cpu_seconds: Option<f64>,
    /// The peak of the resident memory of the program and everything that it ran, in KiB, added up at the same time.
    pub peak_kib: Option<u64>,
    /// Bytes written to S3, or read from it.
    pub s3_bytes: Option<u64>,
    /// Bytes that the program, and everything that it ran, wrote to files on disk.
    pub disk_bytes: Option<u64>,
    /// Requests to AWS's services.
    pub calls: Option<u64>,
}

/// A program, or several, that does the same as the other contenders of its row.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Its runs, in order.
    pub samples: Vec<Sample>,
}

impl Contender {
    /// Returns a contender without runs.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            samples: Vec::new(),
        }
    }

    /// Returns the median of a figure, or `None` if no run has it.
    pub fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(figure).collect())
    }

    /// Returns the minimum and the maximum of a figure, or `None` if no run has it.
    pub fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<(f64, f64)> {
        let values: Vec<f64> = self.samples.iter().filter_map(figure).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some((least, most))
    }
}

/// Returns the median ratio of a figure, ours to the other's. The ratio is taken run by run, so that a machine that becomes
/// slower does not change it.
pub fn ratio(
    ours: &Contender,
    other: &Contender,
    figure: impl Fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    let pairs = ours.samples.iter().zip(&other.samples);
    median(
        pairs
            .filter_map(|(ours, other)| Some(figure(ours)? / figure(other)?))
            .filter(|ratio| ratio.is_finite())
            .collect(),
    )
}

/// Returns the middle value or the mean of the two middle values, or `None` if there are no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (before, after) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(*values.get(before)?, *values.get(after)?))
}

/// A figure and its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// The figure's name, such as `time relative to the original`.
    pub what: String,
    /// The measured value.
    pub value: f64,
    /// The largest value that meets the goal.
    pub limit: f64,
}

impl Goal {
    /// Returns whether the goal is met.
    pub fn is_met(&self) -> bool {
        self.value <= self.limit
    }
}

/// One task, with its contenders and goals.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// The task.
    pub name: String,
    /// The contenders; the first is Rekindle.
    pub contenders: Vec<Contender>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// The size of the task: the plot's horizontal axis.
    pub amount: Option<Amount>,
    /// The profile of Rekindle's run; shown if a goal was missed.
    pub profile: Vec<String>,
}

/// The size of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amount {
    /// The unit, such as `MB of database`.
    pub of: String,
    /// The amount.
    pub value: f64,
}

impl Row {
    /// Returns a row without contenders.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Sets the size of the task.
    pub fn set_amount(&mut self, value: f64, of: &str) {
        self.amount = Some(Amount {
            of: of.to_owned(),
            value,
        });
    }

    /// Adds a run of a contender. Contenders are in the order of their first runs.
    pub fn add(&mut self, contender: &str, sample: Sample) {
        let known = self
            .contenders
            .iter_mut()
            .find(|known| known.name == contender);
        if let Some(known) = known {
            known.samples.push(sample);
            return;
        }
        let mut new = Contender::new(contender);
        new.samples.push(sample);
        self.contenders.push(new);
    }

    /// Adds a goal: the limit of the ratio of a figure of Rekindle to another contender's.
    pub fn compare(
        &mut self,
        what: &str,
        other: &str,
        limit: f64,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) {
        let ours = self.contenders.first();
        let other = self.contenders.iter().find(|one| one.name == other);
        if let (Some(ours), Some(other)) = (ours, other)
            && let Some(value) = ratio(ours, other, figure)
        {
            self.limit(what, value, limit);
        }
    }

    /// Adds a goal: the limit of the maximum of a figure of Rekindle.
    pub fn at_most(&mut self, what: &str, limit: f64, figure: impl Fn(&Sample) -> Option<f64>) {
        let ours = self.contenders.first();
        if let Some((_, most)) = ours.and_then(|ours| ours.spread(figure)) {
            self.limit(what, most, limit);
        }
    }

    /// Returns whether a goal was missed, so that a profile is needed.
    pub fn misses(&self) -> bool {
        !self.goals.iter().all(Goal::is_met)
    }

    /// Adds a goal for any value.
    pub fn limit(&mut self, what: &str, value: f64, limit: f64) {
        self.goals.push(Goal {
            what: what.to_owned(),
            value,
            limit,
        });
    }
}

/// Returns the time, in seconds.
pub fn time(sample: &Sample) -> Option<f64> {
    Some(sample.seconds)
}

/// Returns the bytes in S3.
#[expect(clippy::cast_precision_loss, reason = "no object here has 2^52 bytes")]
pub fn stored(sample: &Sample) -> Option<f64> {
    sample.s3_bytes.map(|bytes| bytes as f64)
}

/// Returns the bytes on disk.
#[expect(clippy::cast_precision_loss, reason = "no file here has 2^52 bytes")]
pub fn written(sample: &Sample) -> Option<f64> {
    sample.disk_bytes.map(|bytes| bytes as f64)
}

/// Returns the memory, in MiB.
#[expect(clippy::cast_precision_loss, reason = "no machine here has 2^52 KiB")]
pub fn memory(sample: &Sample) -> Option<f64> {
    sample.peak_kib.map(|peak| peak as f64 / 1024.0)
}

/// Returns the number of calls.
#[expect(clippy::cast_precision_loss, reason = "they are counted in thousands")]
pub fn calls(sample: &Sample) -> Option<f64> {
    sample.calls.map(|calls| calls as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(seconds: &[f64]) -> Contender {
        let samples = seconds.iter().map(|&seconds| Sample {
            seconds,
            ..Sample::default()
        });
        Contender {
            name: "some".to_owned(),
            samples: samples.collect(),
        }
    }

    #[test]
    fn the_median_does_not_depend_on_the_order_of_runs() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_is_taken_run_by_run() {
        // The machine became ten times slower for the last two runs of both.
        let ours = contender(&[1.0, 1.0, 10.0, 10.0, 30.0]);
        let other = contender(&[2.0, 2.0, 20.0, 20.0, 20.0]);
        assert_eq!(ratio(&ours, &other, time), Some(0.5));
        assert_eq!(ratio(&ours, &contender(&[]), time), None);
        assert_eq!(ratio(&ours, &other, stored), None);
    }

    #[test]
    fn a_goal_is_met_up_to_its_limit() {
        let mut row = Row::new("some work");
        for (ours, theirs) in [(1.0, 2.0), (2.0, 4.0), (2.0, 1.0)] {
            row.add("ours", contender(&[ours]).samples[0].clone());
            row.add("theirs", contender(&[theirs]).samples[0].clone());
        }
        row.compare("time", "theirs", 0.5, time);
        row.at_most("seconds", 1.9, time);
        // No contender has this figure, so that no goal is added.
        row.at_most("bytes", 1.0, stored);
        let met: Vec<(f64, bool)> = row
            .goals
            .iter()
            .map(|goal| (goal.value, goal.is_met()))
            .collect();
        assert_eq!(met, [(0.5, true), (2.0, false)]);
    }
}
