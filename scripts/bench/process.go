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
	ticks := 0
	for _, s := range family(p, pid) {
		ticks += s.ticks
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// treeMemory is the resident memory of a process and its children in bytes.
func treeMemory(p *rig.Program, pid int) int64 {
	var bytes int64
	for _, s := range family(p, pid) {
		bytes += memory(p, s.pid)
	}
	return bytes
}

// stat is what this program reads of a process.
type stat struct{ pid, parent, ticks int }

// family is a process and its children.
func family(p *rig.Program, pid int) []stat {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(paths) == 0 {
		p.Fatalf("look at processes: /proc is needed, which only Linux has (%v)", err)
	}
	var all []stat
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		s, err := readStat(string(data))
		if err != nil {
			p.Fatalf("read %s: %v", path, err)
		}
		if s.pid == pid || s.parent == pid {
			all = append(all, s)
		}
	}
	return all
}

// readStat reads the lines of proc(5), /proc/PID/stat: the id, the parent,
// and user and system time in ticks.
func readStat(line string) (stat, error) {
	// The second field is a name in brackets, which may hold anything.
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("no name in %q", line)
	}
	rest := strings.Fields(line[end+1:])
	if len(rest) < 13 {
		return stat{}, fmt.Errorf("too few fields in %q", line)
	}
	var n [4]int
	for i, field := range []string{strings.TrimSpace(line[:open]), rest[1], rest[11], rest[12]} {
		var err error
		if n[i], err = strconv.Atoi(field); err != nil {
			return stat{}, err
		}
	}
	return stat{pid: n[0], parent: n[1], ticks: n[2] + n[3]}, nil
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

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
