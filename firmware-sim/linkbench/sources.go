package linkbench

import "github.com/packetboat/packetboat/internal/rig/recording"

// source is a public recording that is known by its content.
type source struct {
	title  string
	public string // repository, file, commit, licence
	// layouts are those that a CSV is measured in.
	layouts []layout
}

// layout is how a recording becomes messages.
type layout struct {
	name string
	o    recording.Layout
	// sent stamps each message when it is sent, instead of when it was sampled.
	sent bool
}

var (
	perSignal = layout{name: "JSON per signal"}
	perRow    = layout{name: "JSON per row", o: recording.Rows}
	bare      = layout{name: "bare values", o: recording.Bare}
	whenSent  = layout{name: "JSON per signal, stamped when sent", o: recording.Bare, sent: true}
)

// anyCSV is how a CSV is measured that is not known.
var anyCSV = []layout{perSignal, perRow, bare, whenSent}

// layoutOf names what the other formats hold.
var layoutOf = map[recording.Format]string{
	recording.Candump: "CAN frames", recording.NMEA0183: "NMEA 0183 sentences", recording.N2K: "NMEA 2000 text lines",
	recording.JSON: "JSON objects", recording.NDJSON: "as recorded",
}

// sources are the public recordings, by the SHA-256 of the file.
var sources = map[string]source{
	"4e96c8d883f7a6a343dfa9113ef139c7439e90e9c32ddb8fff4a11978de8455b": {
		"EV drive", "NaitMalekYoussef/RSK_Twizy_EV_Dataset, data/Analyzed/T2_03_29_2021.csv, commit 4f37a713, CC-BY-4.0 (NaitMalek et al.)", []layout{perSignal, perRow},
	},
	"4ee8ff2278fa03b8c557540c0b4aebfdc667bbb1e2af92e67f71c158a545f4bd": {
		"OBD drive", "stevendaniluk/MotecLogGenerator, examples/accessport_sample.csv, commit ffa789aa, WTFPL", []layout{bare, perSignal, whenSent},
	},
	"9f23afe00cd2dd99f9c407ca4f272d02ea1562759643c918f2c5ebb4ad316f26": {
		"car's CAN bus", "stevendaniluk/MotecLogGenerator, examples/can_sample.log, commit ffa789aa, WTFPL", nil,
	},
	"c79c2365ece431cb0bf0fa0f60c0a74c6472edfec49cd4baabadf7ac04eac8fe": {
		"sailing ship", "SignalK/signalk-server, samples/plaka.log, commit 9edfbf95, Apache-2.0", nil,
	},
	"65abc4a8db5e6a970d47cd204c25126857b99577bec67b653ddf0b128fad1b8f": {
		"yacht's NMEA 2000 bus", "SignalK/signalk-server, samples/aava-n2k.data, commit 9edfbf95, Apache-2.0", nil,
	},
	"44745852d843caddd5169c42eb8396298b1dca2e1b3b76bd019b8089e41dde7b": {
		"IoT devices", "garystafford/aws-iot-analytics-demo, sample_data/raw_data_large.json, commit 5aaa4f94, MIT", nil,
	},
}
