import { Cluster } from "nameq/testing";

const cluster = Cluster.make({ nodes: 5, seed: 1, link: { loss: 0.2 } });
cluster.partition([0, 1], [2, 3, 4]);
cluster.node(0).set("db", { port: 5432 });
cluster.advance("10 minutes");
cluster.heal();
cluster.advance("1 minute");
console.log(cluster.converged, cluster.trees);
cluster.close();
