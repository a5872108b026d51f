//! An agent that is killed leaves what it ran in the container; the next command ends it.
