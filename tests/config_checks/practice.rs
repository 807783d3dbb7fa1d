//! Drills that are run by themselves: what is wrong with them, and how to mend it.
