import { simulate } from "./simulationSeeds.js";

simulate(1);
