package signals

import "fmt"

// spec describes one sensor of a profile.
type spec struct {
	name  string
	hertz float64
	kind  kind
}

// profile gives the sensors of a kind of device.
func profile(name string) ([]spec, error) {
	switch name {
	case "car":
		return car(), nil
	case "ship":
		return ship(), nil
	case "steady":
		return steady(), nil
	}
	return nil, fmt.Errorf("profile %.40q: use car, ship or steady", name)
}

// carModules are the control units of a car, the fast ones first.
var carModules = []string{
	"engine", "motor_front", "motor_rear", "battery", "brakes", "steering", "suspension", "stability", "gearbox", "inverter",
	"charger", "dcdc", "fuel", "exhaust", "cooling", "climate", "wheel_fl", "wheel_fr", "wheel_rl", "wheel_rr",
	"body", "door_fl", "door_fr", "door_rl", "door_rr", "seat_driver", "seat_passenger", "lights", "wipers", "dashboard",
	"parking", "camera", "telematics", "gateway",
}

// carQuantities are what each of them measures.
var carQuantities = []spec{
	{"torque", 20, swinging}, {"speed", 20, swinging}, {"current", 20, swinging}, {"angle", 10, swinging}, {"acceleration", 10, swinging},
	{"voltage", 5, walking}, {"power", 5, swinging}, {"pressure", 5, walking}, {"position", 2, swinging}, {"duty", 2, swinging},
	{"flow", 2, walking}, {"temperature", 1, walking}, {"temperature_2", 1, walking}, {"level", 1, walking}, {"state", 1, stepping},
	{"mode", 1, stepping}, {"enabled", 1, flicking}, {"warning", 0.5, flicking}, {"fault", 0.5, flicking}, {"energy", 0.5, counting},
	{"cycles", 0.2, counting}, {"humidity", 0.2, walking}, {"hours", 0.1, counting}, {"wear", 0.1, counting}, {"software", 0.1, stepping},
}

// car has 850 sensors from 0.1 to 100 Hz, 4,433 messages per second together:
// 34 modules of 25 quantities, of which the fastest of the first modules speak
// at 100 Hz.
func car() (all []spec) {
	for m, module := range carModules {
		for q, s := range carQuantities {
			if m < 9 && q == 0 {
				s.hertz = 100
			}
			s.name = module + "/" + s.name
			all = append(all, s)
		}
	}
	return all
}

// ship has 124 sensors from 0.1 to 10 Hz.
func ship() (all []spec) {
	for _, s := range []spec{
		{"heading", 10, swinging}, {"roll", 10, swinging}, {"pitch", 10, swinging}, {"rate_of_turn", 10, swinging},
		{"latitude", 1, swinging}, {"longitude", 1, swinging}, {"course", 1, swinging}, {"speed_over_ground", 1, swinging},
		{"speed_through_water", 1, swinging}, {"depth", 1, walking}, {"wind_speed", 2, swinging}, {"wind_angle", 2, swinging},
		{"rudder", 5, swinging}, {"log", 0.1, counting}, {"air_pressure", 0.1, walking}, {"water_temperature", 0.1, walking},
	} {
		s.name = "navigation/" + s.name
		all = append(all, s)
	}
	for _, engine := range []string{"main_port", "main_starboard", "generator_1", "generator_2", "generator_3", "thruster"} {
		for _, s := range []spec{
			{"rpm", 5, swinging}, {"load", 2, swinging}, {"oil_pressure", 1, walking}, {"oil_temperature", 1, walking},
			{"coolant_temperature", 1, walking}, {"exhaust_temperature", 1, walking}, {"fuel_rate", 1, swinging}, {"boost", 1, walking},
			{"vibration", 5, swinging}, {"voltage", 1, walking}, {"hours", 0.1, counting}, {"alarm", 0.5, flicking},
		} {
			s.name = "engine/" + engine + "/" + s.name
			all = append(all, s)
		}
	}
	for tank := range 12 {
		for _, s := range []spec{{"level", 0.1, walking}, {"temperature", 0.1, walking}, {"valve", 0.1, flicking}} {
			s.name = fmt.Sprintf("tank/%d/%s", tank+1, s.name)
			all = append(all, s)
		}
	}
	return all
}

// steady has 10 sensors of 10 Hz.
func steady() (all []spec) {
	for i := range 10 {
		all = append(all, spec{fmt.Sprintf("sensor_%d", i), 10, walking})
	}
	return all
}
