package main

import (
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

const (
	// gcPercent lets the heap grow to five times what is live before it is
	// collected: most of what a gateway allocates lives for one request, and
	// little outlives it. docs/benchmarks.md has what other values cost.
	gcPercent = 400
	// heapShare of the memory that the container may have is the limit towards
	// which the collector works harder. The rest is for what it does not see.
	heapShare = 0.9
)

// tuneMemory sets the garbage collector, each part unless the environment
// sets it. files is the root of the file system.
func tuneMemory(files fs.FS, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := containerMemory(files); ok {
		debug.SetMemoryLimit(int64(heapShare * float64(limit)))
		log.Info("the container's memory is bounded", "bytes", limit, "memory_limit", debug.SetMemoryLimit(-1))
	}
}

// containerMemory is the least memory limit, in bytes, of the control groups
// that this process is in, version 1 or 2: cgroups(7).
func containerMemory(files fs.FS) (limit int64, ok bool) {
	data, err := fs.ReadFile(files, "proc/self/cgroup")
	if err != nil {
		return 0, false // not Linux
	}
	limit = math.MaxInt64
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			limit = min(limit, leastLimit(files, "sys/fs/cgroup", fields[2], "memory.max"))
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			limit = min(limit, leastLimit(files, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	// Version 1 says "none" with a number near the greatest.
	return limit, limit < math.MaxInt64>>1
}

// leastLimit reads the limit of a group and of those that it lies in. Within
// a container the group may be mounted as the root, whatever its name.
func leastLimit(files fs.FS, root, group, file string) int64 {
	limit := int64(math.MaxInt64)
	for group = path.Join("/", group); ; group = path.Dir(group) {
		data, err := fs.ReadFile(files, path.Join(root, group, file))
		if err == nil {
			// "max" is no number, and no limit.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
		}
		if group == "/" {
			return limit
		}
	}
}
