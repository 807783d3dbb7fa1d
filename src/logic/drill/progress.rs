//! What the director of a drill has shown.

/// Progress shown by the drill's director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillMilestone {
    /// An endpoint is suspect.
    Suspect,
    /// All target endpoints have a verdict.
    Verdict,
    /// A snapshot was published.
    Published,
}

/// What one turn of the drill's director showed.
#[derive(Debug, Default)]
pub struct DrillProgress {
    pub milestones: Vec<DrillMilestone>,
    pub has_published: bool,
    /// The real event that ends the drill, if there was one.
    pub interruption: Option<String>,
}
