/* SPDX-License-Identifier: MIT
 *
 * Reads rows from standard input and says which are anomalies, as the model's own detector tells them:
 *
 *     filter MODEL.safetensors < rows.csv        one line each: score, 1 for an anomaly or 0
 *
 * Values are separated by commas; a column with categories holds their names, an empty field is a missing value. Scaling,
 * categories, fills, score and threshold all come from the model file. Exit status: 0, or 1 with one line that says why.
 */
#include <fusedvae/fusedvae.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long line_number = 0;

static void fail(const char* what) {
    if (line_number > 0)
        fprintf(stderr, "filter: line %ld: %s\n", line_number, what);
    else
        fprintf(stderr, "filter: %s\n", what);
    exit(1);
}

static void check(fvae_status status) {
    if (status != FVAE_OK) fail(fvae_last_error());
}

/* The next line without its end, in a buffer that grows; NULL at the end of the input. */
static char* next_line(void) {
    static char* line = NULL;
    static size_t room = 0;
    size_t length = 0;
    for (int c; (c = getchar()) != EOF && c != '\n';) {
        if (length + 2 > room) {
            room = room ? 2 * room : 256;
            line = (char*)realloc(line, room);
            if (!line) fail("not enough memory");
        }
        line[length++] = (char)c;
    }
    if (length == 0 && feof(stdin)) return NULL;
    if (length == 0) return (char*)"";
    if (line[length - 1] == '\r') --length;
    line[length] = '\0';
    return line;
}

static double number(const char* field) {
    if (*field == '\0') return NAN;
    char* end;
    const double value = strtod(field, &end);
    if (*end != '\0') fail("a field is not a number");
    return value;
}

static double category(const char* field, const fvae_column* column) {
    if (*field == '\0') return NAN;
    for (size_t k = 0; k < column->category_count; ++k)
        if (strcmp(field, column->categories[k]) == 0) return (double)k;
    fail("a category is not one that the model knows");
    return 0.0;
}

int main(int argc, char** argv) {
    if (argc != 2) fail("usage: filter MODEL.safetensors < rows.csv");
    fvae_model* model = NULL;
    check(fvae_model_load(argv[1], &model));
    fvae_config config = fvae_config_default();
    check(fvae_model_config(model, &config));
    fvae_detector detector = fvae_detector_default();
    if (!fvae_model_has_detector(model)) fail("the model has no detector");
    check(fvae_model_detector(model, &detector));

    int64_t columns = 1;
    for (size_t i = 0; i < config.input_rank; ++i) columns *= config.input_shape[i];
    double* row = (double*)malloc((size_t)columns * sizeof *row);
    if (!row) fail("not enough memory");
    fvae_array x = fvae_array_default();
    x.data = row;
    x.dtype = FVAE_FLOAT64;
    x.rows = 1;
    x.columns = columns;

    for (char* line; (line = next_line()) != NULL;) {
        ++line_number;
        int64_t filled = 0;
        for (char* field = line; field != NULL;) {
            char* const comma = strchr(field, ',');
            if (comma) *comma = '\0';
            if (filled == columns) fail("it has more fields than the model reads columns");
            const fvae_column* column = config.columns ? &config.columns[filled] : NULL;
            row[filled++] = column && column->category_count ? category(field, column) : number(field);
            field = comma ? comma + 1 : NULL;
        }
        if (filled < columns) fail("it has fewer fields than the model reads columns");
        double score;
        check(fvae_model_score(model, &x, NULL, &score));
        printf("%.17g,%d\n", score, score < detector.threshold);
    }
    free(row);
    fvae_model_free(model);
    return 0;
}
