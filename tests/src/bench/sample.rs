//! What is measured, and the figures that are made of it.

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
    /// The most resident memory of the program and everything that it ran, in KiB, added up as they ran together.
    pub peak_kib: Option<u64>,
    /// Bytes that were put into S3, or read from it.
    pub s3_bytes: Option<u64>,
    /// Bytes that the program, and everything that it ran, wrote to files on disk.
    pub disk_bytes: Option<u64>,
    /// Requests to AWS's services.
    pub calls: Option<u64>,
}

/// A program, or a number of them, that does the same as the others of its row.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Contender {
    /// What it is.
    pub name: String,
    /// Its runs, in the order in which they took turns with the other contenders'.
    pub samples: Vec<Sample>,
}

impl Contender {
    /// Starts without runs.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            samples: Vec::new(),
        }
    }

    /// Returns the median of one figure; none where no run has it.
    pub fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(figure).collect())
    }

    /// Returns the least and the most of one figure.
    pub fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<(f64, f64)> {
        let values: Vec<f64> = self.samples.iter().filter_map(figure).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some((least, most))
    }
}

/// Returns the median of how much of `figure` the first needs for each unit of the second: run by run, so that a
/// machine that becomes slower meanwhile does not move it.
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

/// Returns the middle value, or the mean of both; none of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (before, after) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(*values.get(before)?, *values.get(after)?))
}

/// A figure and what it must not exceed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What is compared, such as `time, of the original's`.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// What it may be at most.
    pub limit: f64,
}

impl Goal {
    /// Tells whether it was reached.
    pub fn is_met(&self) -> bool {
        self.value <= self.limit
    }
}

/// One line of the issue: a task, who does it, and what is to be reached.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// What is done.
    pub name: String,
    /// Who does it; the first is Rekindle.
    pub contenders: Vec<Contender>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
    /// Of what there is how much: what the plot shows it against.
    pub amount: Option<Amount>,
    /// Where ours spends what it takes; shown where a goal was missed.
    pub profile: Vec<String>,
}

/// How much of something there is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amount {
    /// Of what, such as `MB of database`.
    pub of: String,
    /// How much of it.
    pub value: f64,
}

impl Row {
    /// Starts without contenders.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Says of what there is how much.
    pub fn amounts_to(&mut self, value: f64, of: &str) {
        self.amount = Some(Amount {
            of: of.to_owned(),
            value,
        });
    }

    /// Adds a run of a contender, in the order of their first runs.
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

    /// Sets the limit of a figure of ours, compared with another contender's.
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

    /// Sets the limit of the most that a figure of ours ever was.
    pub fn at_most(&mut self, what: &str, limit: f64, figure: impl Fn(&Sample) -> Option<f64>) {
        let ours = self.contenders.first();
        if let Some((_, most)) = ours.and_then(|ours| ours.spread(figure)) {
            self.limit(what, most, limit);
        }
    }

    /// Tells whether a goal was missed, so that a profile is wanted.
    pub fn misses(&self) -> bool {
        !self.goals.iter().all(Goal::is_met)
    }

    /// Sets the limit of any value.
    pub fn limit(&mut self, what: &str, value: f64, limit: f64) {
        self.goals.push(Goal {
            what: what.to_owned(),
            value,
            limit,
        });
    }
}

/// Picks the time.
pub fn time(sample: &Sample) -> Option<f64> {
    Some(sample.seconds)
}

/// Picks the bytes in S3.
#[expect(
    clippy::cast_precision_loss,
    reason = "no object here comes near 2^52 bytes"
)]
pub fn stored(sample: &Sample) -> Option<f64> {
    sample.s3_bytes.map(|bytes| bytes as f64)
}

/// Picks the bytes on disk.
#[expect(
    clippy::cast_precision_loss,
    reason = "no file here comes near 2^52 bytes"
)]
pub fn written(sample: &Sample) -> Option<f64> {
    sample.disk_bytes.map(|bytes| bytes as f64)
}

/// Picks the memory, in MiB.
#[expect(
    clippy::cast_precision_loss,
    reason = "no machine here comes near 2^52 KiB"
)]
pub fn memory(sample: &Sample) -> Option<f64> {
    sample.peak_kib.map(|peak| peak as f64 / 1024.0)
}

/// Picks the calls.
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
    fn the_median_is_in_the_middle_however_the_runs_are_ordered() {
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
        // Nobody has it, so nothing is promised of it.
        row.at_most("bytes", 1.0, stored);
        let met: Vec<(f64, bool)> = row
            .goals
            .iter()
            .map(|goal| (goal.value, goal.is_met()))
            .collect();
        assert_eq!(met, [(0.5, true), (2.0, false)]);
    }
}
