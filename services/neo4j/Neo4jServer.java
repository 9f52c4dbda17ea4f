import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.neo4j.dbms.api.DatabaseManagementService;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;
import org.neo4j.graphdb.QueryExecutionException;

/** A Neo4j server on the folder that its argument names: conf/neo4j.conf, and the password in the file `password`. */
public class Neo4jServer {
    public static void main(String[] arguments) {
        try {
            serve(Path.of(arguments[0]));
        } catch (Exception failure) {
            failure.printStackTrace();
            System.exit(1); // the server's own threads would keep the process alive
        }
    }

    private static void serve(Path home) throws Exception {
        Path ready = Path.of(System.getenv("INTELGRAPH_NEO4J_READY"));
        Files.deleteIfExists(ready);
        DatabaseManagementService server = new DatabaseManagementServiceBuilder(home)
                .loadPropertiesFromFile(home.resolve("conf/neo4j.conf"))
                .build();
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        setPassword(server, Files.readString(home.resolve("password")).strip());
        Files.writeString(ready, "ready");
        Thread.currentThread().join();
    }

    private static void setPassword(DatabaseManagementService server, String password) {
        try {
            server.database("system").executeTransactionally(
                    "ALTER USER neo4j SET PLAINTEXT PASSWORD $password CHANGE NOT REQUIRED",
                    Map.of("password", password));
        } catch (QueryExecutionException refused) {
            if (!refused.getMessage().contains("cannot be the same")) { // it was set at an earlier start
                throw refused;
            }
        }
    }
}
