//! Run folders read back: found below a path, grouped over seeds, and shown on one page.
//!
//! ```no_run
//! let folders = cigl::runs::find(&["runs".into()])?;
//! let runs = folders.into_iter().map(cigl::runs::Run::read).collect::<cigl::Result<Vec<_>>>()?;
//! std::fs::write("report.html", cigl::runs::page("My runs", &runs)?.html()).expect("the disk has room");
//! # Ok::<(), cigl::Error>(())
//! ```

mod find;
mod group;
mod page;
mod run;
mod section;

pub use find::find;
pub use group::{Group, groups};
pub use page::page;
pub use run::{Run, State};
pub use section::{run_section, training_images};
