package main

import (
	"bytes"
	"encoding/json"
	stdlog "log"
	"testing"

	"github.com/sluice-gateway/sluice/configs"
)

func TestWhatALibraryPrintsIsALineOfTheLog(t *testing.T) {
	output, flags := stdlog.Writer(), stdlog.Flags()
	defer func() {
		stdlog.SetOutput(output)
		stdlog.SetFlags(flags)
	}()
	var out bytes.Buffer
	takePrints(newLogger(&out, configs.Log{Level: "info", Format: "json"}))
	stdlog.Printf("failed to increase receive buffer size\n{forged}")
	var line struct{ Level, Msg string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	if line.Level != "WARN" || line.Msg != "failed to increase receive buffer size\n{forged}" {
		t.Errorf("the line is %+v", line)
	}
}
