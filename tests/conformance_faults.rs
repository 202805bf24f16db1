//! The kit against faulty drivers.
