//! What can go wrong with a build.

use std::io;
use std::path::PathBuf;

use strata_image::ImageError;
use strata_layer::LayerError;

/// The result of this crate's operations.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

/// An error of a build: where in which file, what was being done, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is not one, or asks for what is not possible.
    #[error("{file}:{line}: {message}")]
    Dockerfile {
        /// Its name.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// A step failed. Those before it stay cached.
    #[error("{file}:{line}: {instruction}: {source}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// From 1.
        line: usize,
        /// The instruction, shortened.
        instruction: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// The command of a RUN ended with another code than 0.
    #[error("the command ended with exit code {code}")]
    Exit {
        /// 128+N for signal N.
        code: i32,
    },
    /// A RUN took too long.
    #[error("the command did not end within {seconds} s and was killed; split the step")]
    TooLong {
        /// The bound.
        seconds: u64,
    },
    /// What is asked for cannot be done.
    #[error("{0}")]
    Invalid(String),
    /// Nobody waits for the build any more.
    #[error("the build was cancelled")]
    Cancelled,
    /// Layers could not be read or written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An image could not be had or made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A container could not be run.
    #[error("running a container for it failed: {0}")]
    Run(String),
    /// An operation on a file failed.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was being done, as in "reading".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BuildError {
    /// A stable word for status fields and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Dockerfile { .. } => "InvalidDockerfile",
            Self::Step { source, .. } => source.reason(),
            Self::Exit { .. } => "RunFailed",
            Self::TooLong { .. } => "RunTimedOut",
            Self::Invalid(_) => "InvalidBuild",
            Self::Cancelled => "Cancelled",
            Self::Layer(error) => error.reason(),
            Self::Image(error) => error.reason(),
            Self::Run(_) => "RunError",
            Self::Io { .. } => "BuildIo",
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.into(), source: source.into() }
    }
}
