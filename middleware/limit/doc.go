// Package limit decides whether one more request fits within its limits.
//
// In: a key, which says whose request it is, and the time. Out: a Decision.
// A limit is a Rule; several are held together, and a request passes only if
// it fits within all of them: one that is refused by any takes nothing from
// the others.
//
// The algorithms, and what each promises for one key:
//
//   - token_bucket: a bucket of Burst tokens that fills at Requests per Per.
//     Over any time t at most Burst + t·Requests/Per requests pass. It is kept
//     as one instant (the generic cell rate algorithm, ITU-T I.371).
//   - leaky_bucket: the same instant, but a request that comes early waits for
//     its turn: they leave evenly, Per/Requests apart.
//   - fixed_window: at most Requests in each window of Per, counted from the
//     Unix epoch.
//   - sliding_window: an exact log, at most Requests in every stretch of Per,
//     wherever it begins.
//
// Local counts in this process; Shared counts in Redis, for every gateway that
// uses it, by Redis's clock. Where a period does not divide evenly the
// interval is rounded up: a limit is never exceeded for the sake of rounding.
//
// What never changes: memory is bounded, whoever sends whatever keys; those not
// used lately go first.
package limit
