//! Volumes, environment and files of a pod, and where they come from.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;

/// A variable of a container's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Not empty, without '='.
    pub name: String,
    /// Where its value comes from.
    pub source: EnvSource,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSource {
    /// From the template itself.
    Value(String),
    /// From one key of a config or secret.
    Key(MaterialKind, KeyRef),
    /// From the pod's own record.
    Field(Field),
}

/// One key of a config or secret of the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// The config or secret.
    pub name: String,
    /// One of its keys.
    pub key: String,
    /// Without it the variable is left out.
    pub optional: bool,
}

/// Every key of a config or secret as a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFrom {
    /// Before each key.
    pub prefix: String,
    /// Which of the two.
    pub kind: MaterialKind,
    /// Its name.
    pub name: String,
    /// It may be missing.
    pub optional: bool,
}

/// What a pod knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// `metadata.uid`
    Uid,
    /// `metadata.labels['KEY']`
    Label(String),
    /// `metadata.annotations['KEY']`
    Annotation(String),
    /// `spec.nodeName`
    NodeName,
    /// `status.podIP`
    PodIp,
    /// `status.hostIP`
    HostIp,
}

impl Field {
    /// Reads a field reference as Kubernetes writes it; `None` for what is not offered.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = |of: &str| {
            let rest = text.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']")?;
            (!rest.is_empty()).then(|| rest.into())
        };
        Some(match text {
            "metadata.name" => Self::Name,
            "metadata.namespace" => Self::Namespace,
            "metadata.uid" => Self::Uid,
            "spec.nodeName" => Self::NodeName,
            "status.podIP" => Self::PodIp,
            "status.hostIP" => Self::HostIp,
            _ => {
                return key("metadata.labels")
                    .map(Self::Label)
                    .or_else(|| key("metadata.annotations").map(Self::Annotation));
            }
        })
    }
}

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Within the pod.
    pub name: String,
    /// What it is.
    pub source: VolumeSource,
}

/// What a volume of a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A Volume object of the pod's namespace.
    Named(String),
    /// Empty, lives and dies with the pod.
    Scratch {
        /// In memory, else on the node's disk.
        memory: bool,
        /// 0 = no bound of its own.
        size_bytes: u64,
    },
    /// Of the node itself.
    HostPath {
        /// Absolute.
        path: String,
        /// What it has to be.
        kind: HostPathKind,
    },
    /// The keys of a config or secret as files.
    Files(Files),
}

/// What a host path has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathKind {
    /// Anything that is there.
    Any,
    /// A directory that is there.
    Directory,
    /// A directory, made if it is not there.
    DirectoryOrCreate,
    /// A file that is there.
    File,
    /// A file, made if it is not there; its directory is.
    FileOrCreate,
}

/// A config or secret as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Which of the two.
    pub kind: MaterialKind,
    /// Its name.
    pub name: String,
    /// Empty: every key as a file of its name.
    pub items: Vec<FileItem>,
    /// Permission bits of files that say nothing else.
    pub mode: u32,
    /// It, or a key of it, may be missing.
    pub optional: bool,
}

/// One key as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileItem {
    /// The key.
    pub key: String,
    /// Relative, without "..".
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// A volume seen in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Name of a [`Volume`] of the pod.
    pub volume: String,
    /// Absolute, in the container.
    pub path: String,
    /// Relative, without ".."; "" = the volume's root.
    pub sub_path: String,
    /// Cannot be written there.
    pub read_only: bool,
}

/// Config or secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaterialKind {
    /// A Config object.
    Config,
    /// A Secret object.
    Secret,
}

impl MaterialKind {
    /// For people: `config`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }
}

/// The content of a config or secret, as it was when the template revision was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Which of the two.
    pub kind: MaterialKind,
    /// Its name.
    pub name: String,
    /// Its keys; `None`: it was not there and is optional. On the controller a secret's content is not in the model.
    pub content: Option<BTreeMap<String, Vec<u8>>>,
}

/// The keys only: what is behind them may be secret.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.content.iter().flat_map(BTreeMap::keys).collect();
        f.debug_struct("Material").field("kind", &self.kind).field("name", &self.name).field("keys", &keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn fields_are_read_as_kubernetes_writes_them() {
        assert_eq!(Field::parse("metadata.name"), Some(Field::Name));
        assert_eq!(Field::parse("metadata.labels['a/b']"), Some(Field::Label("a/b".into())));
        assert_eq!(Field::parse("metadata.annotations['x']"), Some(Field::Annotation("x".into())));
        for bad in ["", "metadata.labels", "metadata.labels['']", "metadata.labels[a]", "spec.serviceAccountName"] {
            assert_eq!(Field::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn materials_print_their_keys_only() {
        let content = BTreeMap::from([("password".into(), b"hunter2".to_vec())]);
        let text = format!("{:?}", Material { kind: MaterialKind::Secret, name: "db".into(), content: Some(content) });
        assert!(text.contains("password") && !text.contains("hunter2") && !text.contains("104"), "{text}");
    }
}
