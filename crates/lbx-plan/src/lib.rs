//! What the user wrote and what it means: configuration, catalogue of runtimes, plan. Pure.
