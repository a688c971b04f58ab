package main

import (
	"log/slog"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestTheMemoryOfAContainerIsTheLeastLimitOfItsGroups(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // 0 is none
	}{
		"version 2, the group is the root": {map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "268435456\n",
		}, 256 << 20},
		"version 2, a group within a smaller one": {map[string]string{
			"proc/self/cgroup":                         "0::/pods/sluice\n",
			"sys/fs/cgroup/pods/memory.max":            "268435456\n",
			"sys/fs/cgroup/pods/sluice/memory.max":     "536870912\n",
			"sys/fs/cgroup/pods/elsewhere/memory.max":  "1\n",
			"sys/fs/cgroup/pods/sluice/memory.current": "2\n",
		}, 256 << 20},
		"version 2 without a limit": {map[string]string{
			"proc/self/cgroup":                "0::/sluice\n",
			"sys/fs/cgroup/sluice/memory.max": "max\n",
		}, 0},
		"version 1": {map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20},
		"version 1, named as outside of the container": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abc\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20},
		"version 1 without a limit": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"a name that leads out": {map[string]string{
			"proc/self/cgroup": "0::/../../etc\n", "sys/fs/cgroup/etc/memory.max": "7\n", "etc/memory.max": "9\n",
		}, 7},
		"lines that are none": {map[string]string{"proc/self/cgroup": "0\nx:y\n\n"}, 0},
		"no control groups":   {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for path, text := range c.files {
				files[path] = &fstest.MapFile{Data: []byte(text)}
			}
			got, ok := containerMemory(files)
			if ok != (c.want > 0) || ok && got != c.want {
				t.Errorf("got %d, %t; want %d", got, ok, c.want)
			}
		})
	}
}

func TestTheEnvironmentWinsOverTheGatewaysOwnCollectorSettings(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	bounded := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("1073741824\n")},
	}
	const none = 1 << 40
	for name, c := range map[string]struct {
		env     map[string]string
		percent int
		limit   int64
	}{
		"neither is set": {nil, gcPercent, 966367641}, // nine tenths
		"GOGC":           {map[string]string{"GOGC": "70"}, 70, 966367641},
		"GOMEMLIMIT":     {map[string]string{"GOMEMLIMIT": "1TiB"}, gcPercent, none},
		"both":           {map[string]string{"GOGC": "70", "GOMEMLIMIT": "1TiB"}, 70, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", c.env["GOGC"])
			t.Setenv("GOMEMLIMIT", c.env["GOMEMLIMIT"])
			debug.SetGCPercent(70) // what the runtime made of it
			debug.SetMemoryLimit(none)
			tuneMemory(bounded, slog.New(slog.DiscardHandler))
			if got := debug.SetGCPercent(100); got != c.percent {
				t.Errorf("GC percent %d, want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(none); got != c.limit {
				t.Errorf("memory limit %d, want %d", got, c.limit)
			}
		})
	}
}
