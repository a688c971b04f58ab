package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// ticksPerSecond is the unit of times in /proc; Linux has it at 100
// everywhere Go runs.
const ticksPerSecond = 100

// processTime is the user and system time of a process and its children, as
// nginx has them.
func processTime(p *rig.Program, pid int) time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		p.Fatalf("read the times of processes: /proc is needed, which only Linux has (%v)", err)
	}
	ticks := 0
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		owner, parent, used, err := readStat(string(data))
		if err != nil {
			p.Fatalf("read %s: %v", path, err)
		}
		if owner == pid || parent == pid {
			ticks += used
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// readStat reads the lines of proc(5), /proc/PID/stat: the id, the parent,
// and user and system time in ticks.
func readStat(line string) (pid, parent, ticks int, err error) {
	// The second field is a name in brackets, which may hold anything.
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return 0, 0, 0, fmt.Errorf("no name in %q", line)
	}
	rest := strings.Fields(line[end+1:])
	if len(rest) < 13 {
		return 0, 0, 0, fmt.Errorf("too few fields in %q", line)
	}
	var n [4]int
	for i, field := range []string{strings.TrimSpace(line[:open]), rest[1], rest[11], rest[12]} {
		if n[i], err = strconv.Atoi(field); err != nil {
			return 0, 0, 0, err
		}
	}
	return n[0], n[1], n[2] + n[3], nil
}

// memory is the resident memory of a process in bytes.
func memory(p *rig.Program, pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		p.Fatalf("read the memory of a process: %v", err)
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		p.Fatalf("read the memory of a process: %q", data)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		p.Fatalf("read the memory of a process: %v", err)
	}
	return pages * int64(os.Getpagesize())
}
