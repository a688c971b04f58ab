package routing

// split chooses the subset of a request.
type split struct{}

// onEmpty is what a service does without a passing instance.
type onEmpty struct{}

// memory is what a table remembers for the next build.
type memory struct{}
