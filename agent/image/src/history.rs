//! How an image came about, by its config.

use crate::store::StoredImage;
use strata_model::Layer;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryEntry {
    /// RFC 3339; "" = it does not say.
    pub created: String,
    /// What was done.
    pub created_by: String,
    /// For people.
    pub comment: String,
    /// What it gave; `None`: nothing but a change of the config.
    pub layer: Option<Layer>,
}

impl StoredImage {
    /// Its steps, the oldest first. Layers that no step claims come last, so that none is left out.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        let mut layers = self.layers.iter().cloned();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let steps = self.config.history().iter().flatten();
        let mut entries: Vec<HistoryEntry> = steps
            .map(|step| HistoryEntry {
                created: text(step.created()),
                created_by: text(step.created_by()),
                comment: text(step.comment()),
                layer: if step.empty_layer() == Some(true) { None } else { layers.next() },
            })
            .collect();
        entries.extend(layers.map(|layer| HistoryEntry { layer: Some(layer), ..HistoryEntry::default() }));
        entries
    }
}
