/** The program's and the library's version: package.json's, which a test compares. */
export const version = "0.1.0";
