//! Templates as people write them, and as revisions with their images pinned.

use std::collections::{BTreeMap, HashMap};
use strata_model::ImageName;
use strata_proto::types::{ImageSpec, PinnedImage, PodTemplate, TemplateSpec, container::PullPolicy};

/// The normalised form of a name. A name that is not valid never gets here: the API refuses it.
fn normalised(image: &str) -> String {
    ImageName::parse(image).map_or_else(|_| image.to_owned(), |name| name.to_string())
}

/// The distinct images of a template with the most demanding of their containers' pull policies.
pub fn images(template: &PodTemplate) -> BTreeMap<String, PullPolicy> {
    let rank = |policy: PullPolicy| match policy {
        PullPolicy::Never => 0,
        PullPolicy::IfNotPresent => 1,
        PullPolicy::Always => 2,
    };
    let mut images: BTreeMap<String, PullPolicy> = BTreeMap::new();
    for container in &template.containers {
        let policy = images.entry(normalised(&container.image)).or_insert(container.pull_policy());
        if rank(container.pull_policy()) > rank(*policy) {
            *policy = container.pull_policy();
        }
    }
    images
}

/// The template with its images pinned to what they mean now.
pub fn pinned(template: &PodTemplate, found: &HashMap<String, ImageSpec>) -> TemplateSpec {
    let mut pod = template.clone();
    for container in &mut pod.containers {
        container.image = normalised(&container.image);
        container.image_digest = found.get(&container.image).map(|i| i.digest.clone()).unwrap_or_default();
    }
    let images = images(template).into_keys().filter_map(|name| {
        let spec = found.get(&name)?;
        Some(PinnedImage {
            digest: spec.digest.clone(),
            from_registry: spec.from_registry,
            layers: spec.layers.clone(),
            name,
        })
    });
    TemplateSpec { images: images.collect(), pod: Some(pod), materials: vec![] }
}

/// Whether a revision was made from this template.
pub fn is_same(revision: &TemplateSpec, template: &PodTemplate) -> bool {
    let mut old = revision.pod.clone().unwrap_or_default();
    for container in &mut old.containers {
        container.image_digest.clear();
    }
    let mut new = template.clone();
    for container in &mut new.containers {
        container.image = normalised(&container.image);
        container.image_digest.clear();
    }
    old == new
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::Container;

    fn template(images: &[(&str, PullPolicy)]) -> PodTemplate {
        let container = |(i, (image, policy)): (usize, &(&str, PullPolicy))| Container {
            name: format!("c{i}"),
            image: (*image).to_owned(),
            pull_policy: (*policy).into(),
            ..Container::default()
        };
        PodTemplate { containers: images.iter().enumerate().map(container).collect(), ..PodTemplate::default() }
    }

    #[test]
    fn one_image_is_pinned_once_under_its_full_name() {
        let wanted = template(&[
            ("a", PullPolicy::Never),
            ("a:latest", PullPolicy::Always),
            ("x.io/b", PullPolicy::IfNotPresent),
        ]);
        let names: Vec<_> = images(&wanted).into_iter().collect();
        let full = "docker.io/library/a:latest".to_owned();
        assert_eq!(names, [(full.clone(), PullPolicy::Always), ("x.io/b:latest".to_owned(), PullPolicy::IfNotPresent)]);
        let found = |digest: &str| ImageSpec { digest: digest.to_owned(), ..ImageSpec::default() };
        let found = HashMap::from([(full, found("sha256:1")), ("x.io/b:latest".to_owned(), found("sha256:2"))]);
        let revision = pinned(&wanted, &found);
        let digests: Vec<_> =
            revision.pod.as_ref().unwrap().containers.iter().map(|c| c.image_digest.as_str()).collect();
        assert_eq!(digests, ["sha256:1", "sha256:1", "sha256:2"]);
        assert_eq!(revision.images.len(), 2);
        assert!(is_same(&revision, &wanted));
        assert!(!is_same(&revision, &template(&[("a", PullPolicy::Never)])));
    }
}
