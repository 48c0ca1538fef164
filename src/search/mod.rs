//! Search inside one room: what a query means, and where it stands in a text.
